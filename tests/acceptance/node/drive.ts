/**
 * Drives a server through the official SDK's typed calls, one scenario for each argument.
 *
 * The scripted model behind the server says what the scenario's words ask for. Anything that is not
 * as it must be throws: the exit status tells.
 */

import assert from 'node:assert/strict';
import Anthropic, { ConflictError, NotFoundError } from '@anthropic-ai/sdk';
import { betaTool } from '@anthropic-ai/sdk/helpers/beta/json-schema';

const client = new Anthropic({
  baseURL: process.env.BASE_URL!,
  apiKey: process.env.API_KEY!,
  maxRetries: 0,
});
const { agents, environments, files, sessions } = client.beta;

type StreamEvent = Anthropic.Beta.Sessions.BetaManagedAgentsStreamSessionEvents;

/** Collects events until the session is idle again. */
async function untilIdle(stream: AsyncIterable<StreamEvent>): Promise<StreamEvent[]> {
  const seen: StreamEvent[] = [];
  for await (const event of stream) {
    seen.push(event);
    if (event.type === 'session.status_idle') return seen;
  }
  throw new Error(`The stream ended early: ${seen.map((event) => event.type).join(', ')}`);
}

/** Waits until a session is idle, whoever else reads its stream. */
async function settled(id: string): Promise<void> {
  while ((await sessions.retrieve(id)).status !== 'idle') {
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

function said(events: StreamEvent[]): string {
  return events
    .flatMap((event) => (event.type === 'agent.message' ? event.content : []))
    .map((block) => (block.type === 'text' ? block.text : ''))
    .join('');
}

async function newSession(fields: Partial<Anthropic.Beta.AgentCreateParams> = {}) {
  const agent = await agents.create({ name: 'node', model: 'claude-haiku-4-5', ...fields });
  const environment = await environments.create({ name: 'node' });
  return sessions.create({ agent: agent.id, environment_id: environment.id, title: 'From Node' });
}

const scenarios: Record<string, () => Promise<void>> = {
  async definitions() {
    const made = await agents.create({
      name: 'first',
      model: 'claude-haiku-4-5',
      tools: [{ type: 'agent_toolset_20260401', default_config: { enabled: true } }],
    });
    assert.equal(made.version, 1);
    const next = await agents.update(made.id, { version: 1, system: 'Be brief.' });
    assert.equal(next.version, 2);
    assert.equal((await agents.retrieve(made.id, { version: 1 })).system, null);
    const versions: number[] = [];
    for await (const version of agents.versions.list(made.id, { limit: 1 })) {
      versions.push(version.version);
    }
    assert.deepEqual(versions, [2, 1]);
    await assert.rejects(agents.update(made.id, { version: 1, name: 'late' }), ConflictError);
    await agents.archive(made.id);
    for await (const agent of agents.list()) assert.notEqual(agent.id, made.id);

    const environment = await environments.create({ name: 'there' });
    assert.equal((await environments.retrieve(environment.id)).name, 'there');
    const changed = await environments.update(environment.id, { description: 'Over there.' });
    assert.equal(changed.description, 'Over there.');
    const places: string[] = [];
    for await (const each of environments.list({ limit: 1 })) places.push(each.id);
    assert.ok(places.includes(environment.id));
    const closed = await environments.archive((await environments.create({ name: 'closed' })).id);
    assert.ok(closed.archived_at);
    assert.equal((await environments.delete(environment.id)).type, 'environment_deleted');
    await assert.rejects(environments.retrieve(environment.id), NotFoundError);
  },

  async files() {
    const file = await files.upload({
      file: await Anthropic.toFile(Buffer.from('hello'), 'hello.txt', { type: 'text/plain' }),
    });
    assert.equal(file.size_bytes, 5);
    assert.equal(await (await files.download(file.id)).text(), 'hello');
    const found: string[] = [];
    for await (const item of files.list({ limit: 1 })) found.push(item.id);
    assert.equal((await files.retrieveMetadata(file.id)).filename, 'hello.txt');
    assert.deepEqual(found, [file.id]);
    assert.equal((await files.delete(file.id)).id, file.id);
    await assert.rejects(files.retrieveMetadata(file.id), NotFoundError);
  },

  async resources() {
    const upload = async (words: string) =>
      files.upload({
        file: await Anthropic.toFile(Buffer.from(words), 'words.txt', { type: 'text/plain' }),
      });
    const [first, second] = [await upload('first words'), await upload(' and more')];
    const agent = await agents.create({
      name: 'node',
      model: 'claude-haiku-4-5',
      tools: [{ type: 'agent_toolset_20260401' }],
    });
    const environment = await environments.create({ name: 'node' });
    const session = await sessions.create({
      agent: agent.id,
      environment_id: environment.id,
      resources: [{ type: 'file', file_id: first.id }],
    });
    const [usual] = session.resources;
    assert.ok(usual?.type === 'file');
    assert.equal(usual.mount_path, `/mnt/session/uploads/${first.id}`);
    const added = await sessions.resources.add(session.id, {
      type: 'file',
      file_id: second.id,
      mount_path: '/workspace/data/words.txt',
    });
    const listed: string[] = [];
    for await (const each of sessions.resources.list(session.id, { limit: 1 })) {
      if (each.type === 'file') listed.push(each.id);
    }
    assert.deepEqual(listed, [usual.id, added.id]);
    const shown = await sessions.resources.retrieve(added.id, { session_id: session.id });
    assert.deepEqual(shown, added);
    await assert.rejects(
      sessions.resources.add(session.id, {
        type: 'file',
        file_id: second.id,
        mount_path: '/workspace/data/words.txt',
      }),
      ConflictError,
    );
    const stream = await sessions.events.stream(session.id);
    await sessions.events.send(session.id, {
      events: [
        { type: 'user.message', content: [{ type: 'text', text: 'Show what is mounted.' }] },
      ],
    });
    assert.equal(said(await untilIdle(stream)), 'It says: first words and more');
    const gone = await sessions.resources.delete(added.id, { session_id: session.id });
    assert.equal(gone.type, 'session_resource_deleted');
    await assert.rejects(
      sessions.resources.retrieve(added.id, { session_id: session.id }),
      NotFoundError,
    );
  },

  async conversation() {
    const session = await newSession();
    assert.equal(session.status, 'idle');
    const stream = await sessions.events.stream(session.id, {
      event_deltas: ['agent.message', 'agent.thinking'],
    });
    const sent = await sessions.events.send(session.id, {
      events: [{ type: 'user.message', content: [{ type: 'text', text: 'Say hello.' }] }],
    });
    assert.equal(sent.data?.[0]?.type, 'user.message');
    const events = await untilIdle(stream);
    assert.match(said(events), /Hello/);
    const deltas = events
      .flatMap((event) => (event.type === 'event_delta' ? [event.delta.content] : []))
      .map((content) => content.text)
      .join('');
    assert.equal(deltas, said(events));

    const kept: string[] = [];
    for await (const event of sessions.events.list(session.id, { limit: 3 })) kept.push(event.type);
    assert.deepEqual(
      kept,
      events.map((event) => event.type).filter((type) => !type.startsWith('event_')),
    );
    const newest = await sessions.events.list(session.id, { order: 'desc', limit: 1 });
    assert.equal(newest.data[0]?.type, kept.at(-1));
    const messages: string[] = [];
    for await (const event of sessions.events.list(session.id, { types: ['agent.message'] })) {
      messages.push(event.type);
    }
    assert.deepEqual(new Set(messages), new Set(['agent.message']));

    const named = await sessions.update(session.id, { title: 'Renamed', metadata: { a: 'b' } });
    assert.equal(named.title, 'Renamed');
    assert.ok((named.usage.output_tokens ?? 0) > 0);
    const listed: string[] = [];
    for await (const item of sessions.list({ statuses: ['idle'], limit: 1 })) listed.push(item.id);
    assert.ok(listed.includes(session.id));
    const [thread] = (await sessions.threads.list(session.id)).data;
    assert.equal(thread?.session_id, session.id);
    await sessions.archive(session.id);
    await assert.rejects(
      sessions.events.send(session.id, {
        events: [{ type: 'user.message', content: [{ type: 'text', text: 'More.' }] }],
      }),
      ConflictError,
    );
    assert.equal((await sessions.delete(session.id)).type, 'session_deleted');
    await assert.rejects(sessions.retrieve(session.id), NotFoundError);
  },

  async interrupt() {
    const session = await newSession();
    const stream = await sessions.events.stream(session.id, { event_deltas: ['agent.message'] });
    await sessions.events.send(session.id, {
      events: [
        {
          type: 'user.message',
          content: [
            { type: 'text', text: 'Please linger over this picture.' },
            {
              type: 'image',
              source: { type: 'base64', media_type: 'image/png', data: process.env.PICTURE! },
            },
          ],
        },
      ],
    });
    for await (const event of stream) {
      if (event.type !== 'event_delta') continue;
      await sessions.events.send(session.id, { events: [{ type: 'user.interrupt' }] });
      break;
    }
    await settled(session.id);
    const rest = await sessions.events.stream(session.id);
    await sessions.events.send(session.id, {
      events: [{ type: 'user.message', content: [{ type: 'text', text: 'Say hello.' }] }],
    });
    assert.equal(said(await untilIdle(rest)), 'Hello there, my friend.');
  },

  async threads() {
    const helper = await agents.create({ name: 'helper', model: 'claude-haiku-4-5' });
    const session = await newSession({
      tools: [{ type: 'agent_toolset_20260401' }],
      multiagent: { type: 'coordinator', agents: [helper.id] },
    });
    const stream = await sessions.events.stream(session.id);
    await sessions.events.send(session.id, {
      events: [{ type: 'user.message', content: [{ type: 'text', text: 'Please delegate.' }] }],
    });
    const events = await untilIdle(stream);
    const created = events.find((event) => event.type === 'session.thread_created');
    assert.ok(created && created.type === 'session.thread_created');
    const id = created.session_thread_id;
    const where = { session_id: session.id };
    assert.equal((await sessions.threads.retrieve(id, where)).id, id);
    const kept: string[] = [];
    for await (const event of sessions.threads.events.list(id, where)) kept.push(event.type);
    assert.ok(kept.includes('agent.message'), kept.join());
    const live = await sessions.threads.events.stream(id, where);
    live.controller.abort();
    assert.ok((await sessions.threads.archive(id, where)).archived_at);
  },

  async confirmation() {
    const session = await newSession({
      tools: [
        {
          type: 'agent_toolset_20260401',
          default_config: { permission_policy: { type: 'always_ask' } },
        },
      ],
    });
    const stream = await sessions.events.stream(session.id);
    await sessions.events.send(session.id, {
      events: [{ type: 'user.message', content: [{ type: 'text', text: 'Use bash.' }] }],
    });
    const asked = await untilIdle(stream);
    const idle = asked.at(-1)!;
    assert.ok(idle.type === 'session.status_idle' && idle.stop_reason.type === 'requires_action');
    const [use] = idle.stop_reason.event_ids;
    const call = asked.find((event) => 'id' in event && event.id === use);
    assert.ok(call?.type === 'agent.tool_use' && call.evaluated_permission === 'ask');
    assert.equal(call.name, 'bash');
    const rest = await sessions.events.stream(session.id);
    await sessions.events.send(session.id, {
      events: [{ type: 'user.tool_confirmation', tool_use_id: use!, result: 'allow' }],
    });
    const done = await untilIdle(rest);
    const result = done.find((event) => event.type === 'agent.tool_result');
    assert.ok(result?.type === 'agent.tool_result' && result.tool_use_id === use);
    await assert.rejects(
      sessions.events.send(session.id, {
        events: [{ type: 'user.tool_confirmation', tool_use_id: use!, result: 'deny' }],
      }),
      ConflictError,
    );
  },

  async runner() {
    const weather = betaTool({
      name: 'weather',
      description: 'Tells the weather.',
      inputSchema: {
        type: 'object',
        properties: { city: { type: 'string' } },
        required: ['city'],
      } as const,
      run: async ({ city }) => `Sun in ${city}.`,
    });
    const session = await newSession({
      tools: [
        {
          type: 'custom',
          name: 'weather',
          description: 'Tells the weather.',
          input_schema: { type: 'object', properties: { city: { type: 'string' } } },
        },
      ],
    });
    await sessions.events.send(session.id, {
      events: [{ type: 'user.message', content: [{ type: 'text', text: 'Ask for the weather.' }] }],
    });
    const calls: string[] = [];
    for await (const call of sessions.events.toolRunner(session.id, {
      tools: [weather],
      maxIdleMs: 1000,
    })) {
      calls.push(call.name);
      assert.equal(call.posted, true);
    }
    assert.deepEqual(calls, ['weather']);
    let words = '';
    for await (const event of sessions.events.list(session.id)) {
      if (event.type === 'agent.message') words += said([event]);
    }
    assert.match(words, /Sun in Oslo/);
  },

  async selfHosted() {
    const there = await environments.create({ name: 'there', config: { type: 'self_hosted' } });
    assert.equal(there.config.type, 'self_hosted');
    const made = await client.post<{ id: string; key: string }>(
      `/v1/environments/${there.id}/keys`,
      { body: { name: 'node', expires_in_seconds: 600 } },
    );
    const worker = client.withOptions({ apiKey: null, authToken: made.key });
    const { work } = worker.beta.environments;
    assert.equal(await work.poll(there.id), null);
    const agent = await agents.create({
      name: 'node',
      model: 'claude-haiku-4-5',
      tools: [{ type: 'agent_toolset_20260401' }],
    });
    const session = await sessions.create({ agent: agent.id, environment_id: there.id });
    const stats = await client.beta.environments.work.stats(there.id);
    assert.deepEqual([stats.depth, stats.pending], [1, 0]);

    const item = await work.poll(there.id, { block_ms: 999, 'Anthropic-Worker-ID': 'node' });
    assert.ok(item?.secret);
    assert.equal(item.data.id, session.id);
    const own = { environment_id: there.id };
    assert.equal((await work.ack(item.id, own)).state, 'starting');
    const beat = await work.heartbeat(item.id, { ...own, expected_last_heartbeat: 'NO_HEARTBEAT' });
    assert.equal(beat.state, 'active');
    await assert.rejects(
      work.heartbeat(item.id, { ...own, expected_last_heartbeat: 'NO_HEARTBEAT' }),
      (error: unknown) => error instanceof Anthropic.APIError && error.status === 412,
    );
    const listed: string[] = [];
    for await (const each of work.list(there.id, { limit: 1 })) listed.push(each.id);
    assert.deepEqual(listed, [item.id]);

    const { sessions_token: token } = JSON.parse(
      Buffer.from(item.secret, 'base64url').toString(),
    ) as { sessions_token: string };
    const serving = client.withOptions({ apiKey: null, authToken: token });
    const stream = await serving.beta.sessions.events.stream(session.id);
    await sessions.events.send(session.id, {
      events: [{ type: 'user.message', content: [{ type: 'text', text: 'Please mark.' }] }],
    });
    const events: StreamEvent[] = [];
    for await (const event of stream) {
      events.push(event);
      if (event.type === 'agent.tool_use') {
        await serving.beta.sessions.events.send(session.id, {
          events: [
            {
              type: 'user.tool_result',
              tool_use_id: event.id,
              content: [{ type: 'text', text: 'From Node.' }],
            },
          ],
        });
      }
      if (event.type === 'session.status_idle' && event.stop_reason.type === 'end_turn') break;
    }
    assert.equal(said(events), 'From Node.');

    const operator = client.beta.environments.work;
    const shown = await operator.update(item.id, { ...own, metadata: { host: 'node' } });
    assert.deepEqual(shown.metadata, { host: 'node' });
    assert.equal((await operator.retrieve(item.id, own)).state, 'active');
    assert.equal((await work.stop(item.id, { ...own, force: true })).state, 'stopped');
    await assert.rejects(operator.stop(item.id, { ...own, force: true }), ConflictError);
    await client.delete(`/v1/environments/${there.id}/keys/${made.id}`);
    await assert.rejects(work.poll(there.id), Anthropic.AuthenticationError);
  },

  async absent() {
    await assert.rejects(client.beta.vaults.create({ display_name: 'x' }), NotFoundError);
    await assert.rejects(client.beta.deployments.list(), NotFoundError);
    await assert.rejects(client.beta.memoryStores.list(), NotFoundError);
    await assert.rejects(client.beta.skills.list(), NotFoundError);
  },
};

for (const name of process.argv.slice(2)) {
  const scenario = scenarios[name];
  assert.ok(scenario, `There is no scenario ${name}.`);
  await scenario();
  console.log(`${name}: ok`);
}
