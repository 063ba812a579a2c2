/** The cells of OpenAI's own client. */

import assert from 'node:assert/strict';
import OpenAI, { toFile } from 'openai';
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

type Chat = OpenAI.Chat.Completions.ChatCompletionCreateParamsNonStreaming;
type Message = OpenAI.Chat.Completions.ChatCompletionMessageParam;

const WEATHER = { name: 'weather', description: 'The weather in a city.', parameters: CITY_SCHEMA };
const { words } = station;

const client = new OpenAI({ baseURL: `${station.url}/v1`, apiKey: station.key, maxRetries: 0 });

function asking(at: Case, scene: string, more: Partial<Chat> = {}): Chat {
  const messages: Message[] = [{ role: 'user', content: at.ask(scene) }];
  return { model: at.model, messages, max_completion_tokens: 2000, ...more };
}

function checkUsage({ usage }: Case, told: OpenAI.CompletionUsage | null | undefined): void {
  const prompt =
    usage.input_tokens + usage.cache_creation_input_tokens + usage.cache_read_input_tokens;
  assert.equal(told!.prompt_tokens, prompt);
  assert.equal(told!.completion_tokens, usage.output_tokens);
  assert.equal(told!.prompt_tokens_details?.cached_tokens ?? 0, usage.cache_read_input_tokens);
}

async function tools(at: Case, scene: string, cities: string[]): Promise<void> {
  const asked = asking(at, scene, { tools: [{ type: 'function', function: WEATHER }] });
  const answers = [
    await client.chat.completions.create(asked),
    await client.chat.completions.stream({ ...asked, stream: true }).finalChatCompletion(),
  ];
  for (const answer of answers) {
    const [choice] = answer.choices;
    assert.equal(choice!.finish_reason, 'tool_calls');
    const calls = choice!.message.tool_calls!;
    const inputs = calls.map((call) => (call.type === 'function' ? call.function.arguments : ''));
    assert.deepEqual(
      inputs.map((each) => JSON.parse(each).city),
      cities,
    );
    assert.equal(new Set(calls.map((call) => call.id)).size, cities.length);
    const results = calls.map((call, n): Message => ({
      role: 'tool',
      tool_call_id: call.id,
      content: `fine in ${cities[n]}`,
    }));
    const said: Message = {
      role: 'assistant',
      content: choice!.message.content,
      tool_calls: calls.map((call) => {
        assert.equal(call.type, 'function');
        const { name, arguments: given } = call.type === 'function' ? call.function : assert.fail();
        return { id: call.id, type: 'function', function: { name, arguments: given } };
      }),
    };
    const messages = [...asked.messages, said, ...results];
    const after = await client.chat.completions.create({ ...asked, messages });
    const told = cities.map((city) => `fine in ${city}`).join(' and ');
    assert.equal(after.choices[0]!.message.content, `The tool said: ${told}`);
  }
}

async function error(at: Case, status: number): Promise<void> {
  const shown = status === 402 ? 429 : status;
  const classes: Record<number, new (...args: any[]) => Error> = {
    400: OpenAI.BadRequestError,
    401: OpenAI.AuthenticationError,
    403: OpenAI.PermissionDeniedError,
    404: OpenAI.NotFoundError,
    422: OpenAI.UnprocessableEntityError,
    429: OpenAI.RateLimitError,
  };
  const kind = classes[shown] ?? (shown >= 500 ? OpenAI.InternalServerError : OpenAI.APIError);
  for (const stream of [false, true]) {
    const made = client.withOptions({ apiKey: keyFor(status) });
    const asked = { ...asking(at, sceneFor(status)), stream };
    await assert.rejects(made.chat.completions.create(asked), (raised) => {
      assert.ok(raised instanceof OpenAI.APIError);
      assert.equal(raised.constructor, kind);
      assert.equal(raised.status, shown);
      assert.ok(raised.requestID);
      const body = raised.error as Record<string, string>;
      assert.deepEqual(Object.keys(body).sort(), ['code', 'message', 'param', 'type']);
      if (!station.ours.includes(status)) assert.match(body.message!, RegExp(`scripted ${status}`));
      if (status === 402) {
        assert.equal(raised.code, 'insufficient_quota');
        assert.equal(raised.headers!.get('x-should-retry'), 'false');
      } else if ([429, 503, 529].includes(shown)) {
        assert.ok(Number(raised.headers!.get('retry-after')) > 0);
      }
      return true;
    });
  }
}

export const checks: Checks = {
  async text(at) {
    const answer = await client.chat.completions.create(asking(at, 'text'));
    assert.equal(answer.choices[0]!.message.content, words);
    assert.equal(answer.choices[0]!.finish_reason, 'stop');
    assert.match(answer._request_id!, /^req_\w+$/);
    checkUsage(at, answer.usage);
  },
  async stream(at) {
    const stream_options = { include_usage: true };
    const asked = { ...asking(at, 'text'), stream: true as const, stream_options };
    const chunks = [];
    for await (const chunk of await client.chat.completions.create(asked)) chunks.push(chunk);
    const pieces = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? '').filter(Boolean);
    assert.equal(pieces.join(''), words);
    assert.ok(pieces.length > 3);
    assert.equal(new Set(chunks.map((chunk) => chunk.id)).size, 1);
    checkUsage(at, chunks.at(-1)!.usage);
  },
  tools: (at) => tools(at, 'tools', ['Ulm']),
  parallel: (at) => tools(at, 'parallel', ['Ulm', 'Bonn']),
  async image(at) {
    const content: OpenAI.Chat.Completions.ChatCompletionContentPart[] = [
      { type: 'text', text: at.ask('image') },
      { type: 'image_url', image_url: { url: `data:image/png;base64,${station.picture}` } },
    ];
    const messages: Message[] = [{ role: 'user', content }];
    const answer = await client.chat.completions.create(asking(at, 'image', { messages }));
    assert.equal(answer.choices[0]!.message.content, station.seen);
  },
  async structured(at) {
    const json_schema = { name: 'forecast', strict: true, schema: SCHEMA };
    const answer = await client.chat.completions.parse({
      ...asking(at, 'structured'),
      response_format: { type: 'json_schema', json_schema },
    });
    assert.deepEqual(JSON.parse(answer.choices[0]!.message.content!), station.forecast);
  },
  async thinking(at) {
    const asked = asking(at, 'thinking', {
      tools: [{ type: 'function', function: WEATHER }],
      reasoning_effort: 'low',
      max_completion_tokens: 8000,
    });
    const said: any = (await client.chat.completions.create(asked)).choices[0]!.message;
    assert.equal(said.reasoning_content, station.thought);
    if (at.asAnthropic) {
      assert.equal(said.thinking_blocks[0].signature, station.signature);
    }
    const result: Message = { role: 'tool', tool_call_id: said.tool_calls[0].id, content: 'fine' };
    const messages = [...asked.messages, said, result];
    const after = await client.chat.completions.create({ ...asked, messages });
    assert.equal(after.choices[0]!.message.content, 'Kept.');
    return at.asAnthropic ? undefined : 'no_signature';
  },
  count_tokens: async () => 'no_such_call',
  async embeddings(at) {
    if (at.asAnthropic) {
      await assert.rejects(client.embeddings.create({ model: at.model, input: 'a' }), (raised) => {
        assert.ok(raised instanceof OpenAI.BadRequestError);
        assert.match(raised.message, /does not take requests of this kind/);
        return true;
      });
      return 'no_embeddings';
    }
    // The client asks for base64 unless it is told not to.
    for (const encoding_format of [undefined, 'float' as const]) {
      const asked = { model: at.model, input: ['a', 'b'], encoding_format };
      const found = await client.embeddings.create(asked);
      assert.deepEqual(found.data.map((each) => each.embedding), [station.vector, station.vector]);
    }
  },
  async responses(at) {
    const model = at.model;
    const tool = { type: 'function' as const, ...WEATHER, strict: false };
    const plain = await client.responses.create({ model, input: at.ask('text') });
    assert.equal(plain.output_text, words);
    assert.equal(plain.usage!.output_tokens, at.usage.output_tokens);
    const numbers: number[] = [];
    const stream = client.responses.stream({ model, input: at.ask('text') });
    for await (const event of stream) numbers.push(event.sequence_number);
    assert.deepEqual(numbers, [...numbers.keys()]);
    assert.equal((await stream.finalResponse()).output_text, words);
    const called = await client.responses.create({ model, input: at.ask('tools'), tools: [tool] });
    const call = called.output.find((item) => item.type === 'function_call')!;
    assert.equal(JSON.parse(call.arguments).city, 'Ulm');
    const input = [
      { role: 'user' as const, content: at.ask('tools') },
      ...called.output,
      { type: 'function_call_output' as const, call_id: call.call_id, output: 'fine' },
    ] as OpenAI.Responses.ResponseInput;
    const after = await client.responses.create({ model, input, tools: [tool] });
    assert.equal(after.output_text, 'The tool said: fine');
    const format = { type: 'json_schema' as const, name: 'forecast', strict: true, schema: SCHEMA };
    const asked = { model, input: at.ask('structured'), text: { format } };
    const parsed = await client.responses.parse(asked);
    assert.deepEqual(JSON.parse(parsed.output_text), station.forecast);
  },
  async previous(at) {
    const tools = [{ type: 'function' as const, ...WEATHER, strict: false }];
    const model = at.model;
    const called = await client.responses.create({ model, input: at.ask('tools'), tools });
    const call = called.output.find((item) => item.type === 'function_call')!;
    const result = { type: 'function_call_output' as const, call_id: call.call_id, output: 'fine' };
    const asked = { model, previous_response_id: called.id, tools, input: [result] };
    const told = await client.responses.create(asked);
    assert.equal(told.output_text, 'The tool said: fine');
    assert.equal(told.previous_response_id, called.id);
    const streamed = await client.responses.stream(asked).finalResponse();
    assert.equal(streamed.output_text, told.output_text);
    assert.equal((await client.responses.retrieve(told.id)).id, told.id);
  },
  async agent(at) {
    const asked = asking(at, 'text', { model: at.agent });
    const answer = await client.chat.completions.create(asked);
    assert.equal(answer.choices[0]!.message.content, words);
    assert.ok(answer.usage!.total_tokens > 0);
    const pieces: string[] = [];
    for await (const chunk of await client.chat.completions.create({ ...asked, stream: true })) {
      if (chunk.choices[0]?.delta.content) pieces.push(chunk.choices[0].delta.content);
    }
    assert.equal(pieces.join(''), words);
    assert.ok(pieces.length > 1);
  },
  async gzip(at) {
    const asked = asking(at, 'long');
    const told = await client.chat.completions.create(asked).withResponse();
    assert.equal(told.response.headers.get('content-encoding'), 'gzip');
    assert.equal(told.data.choices[0]!.message.content, station.long);
    const made = client.chat.completions.create({ ...asked, stream: true as const });
    const { data, response } = await made.withResponse();
    assert.equal(response.headers.get('content-encoding'), null);
    for await (const chunk of data) assert.ok(chunk);
    const headers = { 'accept-encoding': 'identity' };
    const plain = await client.chat.completions.create(asked, { headers }).withResponse();
    assert.equal(plain.response.headers.get('content-encoding'), null);
    assert.equal(plain.data.choices[0]!.message.content, station.long);
  },
  async batches(at) {
    const url = '/v1/chat/completions';
    const line = { custom_id: 'one', method: 'POST', url, body: asking(at, 'text') };
    const file = await toFile(Buffer.from(JSON.stringify(line)), 'in.jsonl');
    const given = await client.files.create({ file, purpose: 'batch' });
    const made = await client.batches.create({
      input_file_id: given.id,
      endpoint: url,
      completion_window: '24h',
    });
    const done = await until(async () => {
      const batch = await client.batches.retrieve(made.id);
      return batch.status === 'completed' ? batch : undefined;
    });
    const told = await (await client.files.content(done.output_file_id!)).text();
    assert.equal(JSON.parse(told).response.body.choices[0].message.content, words);
  },
  async retry(at) {
    const answer = await client.chat.completions.create(asking(at, 'retry'), { maxRetries: 2 });
    assert.equal(answer.choices[0]!.message.content, words);
    await at.waited();
  },
  async timeout(at) {
    for (const timeout of PATIENCE) {
      await assert.rejects(
        client.chat.completions.create(asking(at, 'slow'), { timeout }),
        OpenAI.APIConnectionTimeoutError,
      );
      if ((await at.calls()).length > 0) break;
    }
    await at.closed();
  },
  async cancel(at) {
    const asked = { ...asking(at, 'endless'), stream: true as const };
    const stream = await client.chat.completions.create(asked);
    for await (const chunk of stream) {
      if (chunk.choices[0]?.delta.content) break;
    }
    stream.controller.abort();
    await at.closed();
  },
  ...Object.fromEntries(
    station.statuses.map((status) => [`error_${status}`, (at: Case) => error(at, status)]),
  ),
};
