/** The cells of Anthropic's own client. */

import assert from 'node:assert/strict';
import Anthropic from '@anthropic-ai/sdk';
import {
  type Case,
  type Checks,
  CITY_SCHEMA,
  keyFor,
  PATIENCE,
  SCHEMA,
  sceneFor,
  station,
  until,
} from './conformance-station.js';

type Asked = Anthropic.Messages.MessageCreateParamsNonStreaming;

const WEATHER = {
  name: 'weather',
  description: 'The weather in a city.',
  input_schema: CITY_SCHEMA,
};
const ERRORS: Record<number, string> = {
  400: 'BadRequestError',
  401: 'AuthenticationError',
  402: 'PaymentRequiredError',
  403: 'PermissionDeniedError',
  404: 'NotFoundError',
  413: 'ContentTooLargeError',
  422: 'UnprocessableEntityError',
  429: 'RateLimitError',
  500: 'InternalServerError',
  502: 'InternalServerError',
  503: 'ServiceUnavailableError',
  529: 'OverloadedError',
};
const { words } = station;

const client = new Anthropic({ baseURL: station.url, apiKey: station.key, maxRetries: 0 });

function asking(at: Case, scene: string, more: Partial<Asked> = {}): Asked {
  const messages = [{ role: 'user' as const, content: at.ask(scene) }];
  return { model: at.model, messages, max_tokens: 2000, ...more };
}

function said(message: Anthropic.Message): string {
  return message.content.map((block) => (block.type === 'text' ? block.text : '')).join('');
}

function checkUsage({ usage }: Case, told: Anthropic.Usage): void {
  for (const [name, tokens] of Object.entries(usage)) {
    assert.equal(told[name as keyof typeof usage], tokens, name);
  }
}

async function both(asked: Asked): Promise<Anthropic.Message[]> {
  return [await client.messages.create(asked), await client.messages.stream(asked).finalMessage()];
}

/** The answer after each of an answer's tool calls was given its result. */
async function after(asked: Asked, answer: Anthropic.Message, results: string[]): Promise<string> {
  const calls = answer.content.filter((block) => block.type === 'tool_use');
  const content = calls.map((call, n) => ({
    type: 'tool_result' as const,
    tool_use_id: call.id,
    content: results[n],
  }));
  const messages = [
    ...asked.messages,
    { role: 'assistant' as const, content: answer.content },
    { role: 'user' as const, content },
  ];
  return said(await client.messages.create({ ...asked, messages }));
}

async function tools(at: Case, scene: string, cities: string[]): Promise<void> {
  const asked = asking(at, scene, { tools: [WEATHER] });
  for (const answer of await both(asked)) {
    assert.equal(answer.stop_reason, 'tool_use');
    const calls = answer.content.filter((block) => block.type === 'tool_use');
    assert.deepEqual(
      calls.map((call) => call.input),
      cities.map((city) => ({ city })),
    );
    const results = cities.map((city) => `fine in ${city}`);
    const told = await after(asked, answer, results);
    assert.equal(told, `The tool said: ${results.join(' and ')}`);
  }
}

async function error(at: Case, status: number): Promise<void> {
  for (const stream of [false, true]) {
    const made = client.withOptions({ apiKey: keyFor(status) });
    const asked = { ...asking(at, sceneFor(status)), stream };
    await assert.rejects(made.messages.create(asked), (raised) => {
      assert.ok(raised instanceof Anthropic.APIError);
      assert.equal(raised.constructor.name, ERRORS[status]);
      assert.equal(raised.status, status);
      assert.ok(raised.requestID);
      const body = raised.error as { type: string; error: { type: string; message: string } };
      assert.equal(body.type, 'error');
      assert.ok(body.error.type);
      if (!station.ours.includes(status)) {
        assert.match(body.error.message, RegExp(`scripted ${status}`));
      }
      if (status === 402) {
        assert.equal(raised.headers!.get('x-should-retry'), 'false');
      } else if ([429, 503, 529].includes(status)) {
        assert.ok(Number(raised.headers!.get('retry-after')) > 0);
      }
      return true;
    });
  }
}

export const checks: Checks = {
  async text(at) {
    const answer = await client.messages.create(asking(at, 'text'));
    assert.equal(said(answer), words);
    assert.equal(answer.stop_reason, 'end_turn');
    assert.match(answer._request_id!, /^req_\w+$/);
    checkUsage(at, answer.usage);
  },
  async stream(at) {
    const stream = client.messages.stream(asking(at, 'text'));
    const pieces: string[] = [];
    stream.on('text', (piece) => pieces.push(piece));
    const final = await stream.finalMessage();
    assert.equal(pieces.join(''), words);
    assert.ok(pieces.length > 3);
    checkUsage(at, final.usage);
  },
  tools: (at) => tools(at, 'tools', ['Ulm']),
  parallel: (at) => tools(at, 'parallel', ['Ulm', 'Bonn']),
  async image(at) {
    const source = { type: 'base64', media_type: 'image/png', data: station.picture } as const;
    const content = [
      { type: 'image' as const, source },
      { type: 'text' as const, text: at.ask('image') },
    ];
    const asked = asking(at, 'image', { messages: [{ role: 'user', content }] });
    assert.equal(said(await client.messages.create(asked)), station.seen);
  },
  async structured(at) {
    const format = { type: 'json_schema' as const, schema: SCHEMA };
    const asked = asking(at, 'structured', { output_config: { format } });
    const answer = await client.messages.parse(asked);
    assert.deepEqual(JSON.parse(said(answer)), station.forecast);
  },
  async thinking(at) {
    const thinking = { type: 'enabled', budget_tokens: 1024 } as const;
    const asked = asking(at, 'thinking', { tools: [WEATHER], thinking });
    const signature = at.asAnthropic ? station.signature : '';
    for (const answer of await both(asked)) {
      const [thought] = answer.content;
      assert.deepEqual(thought, { type: 'thinking', thinking: station.thought, signature });
      assert.equal(await after(asked, answer, ['fine']), 'Kept.');
    }
    return at.asAnthropic ? undefined : 'no_signature';
  },
  async count_tokens(at) {
    const { max_tokens: _, ...asked } = asking(at, 'text');
    const { data, response } = await client.messages.countTokens(asked).withResponse();
    if (at.asAnthropic) {
      assert.equal(data.input_tokens, station.counted);
    } else {
      assert.ok(data.input_tokens > 0);
      assert.equal(response.headers.get('x-stationmaster-estimated'), 'true');
    }
  },
  embeddings: async () => 'no_such_call',
  responses: async () => 'no_such_call',
  previous: async () => 'no_such_call',
  async agent(at) {
    const asked = asking(at, 'text', { model: at.agent });
    const answer = await client.messages.create(asked);
    assert.equal(said(answer), words);
    assert.ok(answer.usage.output_tokens > 0);
    const pieces: string[] = [];
    const stream = client.messages.stream(asked);
    stream.on('text', (piece) => pieces.push(piece));
    assert.equal(said(await stream.finalMessage()), words);
    assert.ok(pieces.length > 1);
  },
  async gzip(at) {
    const asked = asking(at, 'long');
    const told = await client.messages.create(asked).withResponse();
    assert.equal(told.response.headers.get('content-encoding'), 'gzip');
    assert.equal(said(told.data), station.long);
    const made = client.messages.create({ ...asked, stream: true as const });
    const { data, response } = await made.withResponse();
    assert.equal(response.headers.get('content-encoding'), null);
    for await (const event of data) assert.ok(event);
    const headers = { 'accept-encoding': 'identity' };
    const plain = await client.messages.create(asked, { headers }).withResponse();
    assert.equal(plain.response.headers.get('content-encoding'), null);
    assert.equal(said(plain.data), station.long);
  },
  async batches(at) {
    const requests = [{ custom_id: 'one', params: asking(at, 'text') }];
    const made = await client.messages.batches.create({ requests });
    await until(async () => {
      const batch = await client.messages.batches.retrieve(made.id);
      return batch.processing_status === 'ended' ? batch : undefined;
    });
    const lines = [];
    for await (const line of await client.messages.batches.results(made.id)) lines.push(line);
    assert.equal(lines.length, 1);
    const { result } = lines[0]!;
    assert.ok(result.type === 'succeeded');
    assert.equal(said(result.message), words);
  },
  async retry(at) {
    const answer = await client.messages.create(asking(at, 'retry'), { maxRetries: 2 });
    assert.equal(said(answer), words);
    await at.waited();
  },
  async timeout(at) {
    for (const timeout of PATIENCE) {
      await assert.rejects(
        client.messages.create(asking(at, 'slow'), { timeout }),
        Anthropic.APIConnectionTimeoutError,
      );
      if ((await at.calls()).length > 0) break;
    }
    await at.closed();
  },
  async cancel(at) {
    const stream = await client.messages.create({ ...asking(at, 'endless'), stream: true });
    for await (const event of stream) {
      if (event.type === 'content_block_delta') break;
    }
    stream.controller.abort();
    await at.closed();
  },
  ...Object.fromEntries(
    station.statuses.map((status) => [`error_${status}`, (at: Case) => error(at, status)]),
  ),
};
