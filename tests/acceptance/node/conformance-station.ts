/** What every check of the conformance table is given. */

import assert from 'node:assert/strict';

export type Provider = 'anthropic' | 'openai' | 'ollama' | 'bedrock' | 'vertex';
/** Nothing where it passed, else the word of a reason. */
export type Check = (at: Case) => Promise<string | void>;
export type Checks = Record<string, Check>;

export interface Usage {
  input_tokens: number;
  output_tokens: number;
  cache_creation_input_tokens: number;
  cache_read_input_tokens: number;
}

interface Station {
  url: string;
  providers: string;
  key: string;
  poor: string;
  denied: string;
  words: string;
  long: string;
  thought: string;
  signature: string;
  picture: string;
  seen: string;
  forecast: { city: string; degrees: number };
  counted: number;
  vector: number[];
  usages: Record<Provider, Usage>;
  /** The features of each provider's table. */
  cells: Record<Provider, string[]>;
  /** Who answers in Anthropic's words. */
  asAnthropic: Provider[];
  statuses: number[];
  ours: number[];
}

export const station: Station = JSON.parse(process.env.STATION!);
export const SCHEMA = {
  type: 'object',
  properties: { city: { type: 'string' }, degrees: { type: 'integer' } },
  required: ['city', 'degrees'],
  additionalProperties: false,
} as const;
export const CITY_SCHEMA = {
  type: 'object' as const,
  properties: { city: { type: 'string' } },
  required: ['city'],
};
/** Milliseconds until a client gives up. On a busy machine the first may pass too soon. */
export const PATIENCE = [500, 2000, 8000];

const READY_MS = 60_000;

export class Case {
  readonly model: string;
  /** The model's name of an agent that uses it. */
  readonly agent: string;
  readonly tag: string;

  constructor(
    client: string,
    readonly provider: Provider,
    feature: string,
  ) {
    this.model = `on-${provider}`;
    this.agent = `agent:by-${provider}`;
    this.tag = `${client}-${provider}-${feature}`;
  }

  get asAnthropic(): boolean {
    return station.asAnthropic.includes(this.provider);
  }

  get usage(): Usage {
    return station.usages[this.provider];
  }

  /** A prompt for a scene. */
  ask(scene: string): string {
    return `[[${scene}:${this.tag}]] Go on.`;
  }

  /** What became of this check's calls at the provider, once all have ended. */
  async calls(): Promise<{ at: number; disconnected: boolean }[]> {
    const answer = await fetch(`${station.providers}/calls/${this.tag}`);
    return answer.json() as Promise<{ at: number; disconnected: boolean }[]>;
  }

  /** Every call was closed before its end, and there was one. */
  async closed(): Promise<void> {
    const calls = await this.calls();
    assert.ok(calls.length > 0);
    assert.ok(calls.every((call) => call.disconnected));
  }

  /** The second call came when it was told to, not before. */
  async waited(): Promise<void> {
    const [first, second, ...more] = await this.calls();
    assert.deepEqual(more, []);
    assert.ok(second!.at - first!.at >= 1);
  }
}

export function keyFor(status: number): string {
  const keys: Record<number, string> = { 401: 'sk-nobodys', 402: station.poor, 403: station.denied };
  return keys[status] ?? station.key;
}

export function sceneFor(status: number): string {
  return station.ours.includes(status) ? 'text' : `status${status}`;
}

/** Asks again until there is an answer that will do. */
export async function until<T>(look: () => Promise<T | undefined>): Promise<T> {
  const deadline = Date.now() + READY_MS;
  while (Date.now() < deadline) {
    const found = await look();
    if (found !== undefined) return found;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  throw new Error('It took too long.');
}
