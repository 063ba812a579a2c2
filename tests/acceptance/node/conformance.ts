/**
 * Fills the Node columns of the conformance table: a line of JSON for each cell.
 *
 * What the scripted providers say, and where they are, comes in `STATION`.
 */

import { Case, type Checks, type Provider, station } from './conformance-station.js';
import { checks as ofAnthropic } from './conformance-anthropic.js';
import { checks as ofOpenAI } from './conformance-openai.js';

const clients: Record<string, Checks> = {
  'openai-node': ofOpenAI,
  'anthropic-node': ofAnthropic,
};
const AT_ONCE = 8;

const left = Object.entries(clients).flatMap(([client, checks]) =>
  Object.entries(station.cells).flatMap(([name, features]) =>
    features.map((feature) => async () => {
      const provider = name as Provider;
      const check = checks[feature]!;
      const cell = { client, provider, feature };
      try {
        const reason = await check(new Case(client, provider, feature));
        console.log(JSON.stringify({ ...cell, reason: reason ?? null, failure: null }));
      } catch (error) {
        const failure = error instanceof Error ? (error.stack ?? error.message) : String(error);
        console.log(JSON.stringify({ ...cell, reason: null, failure }));
      }
    }),
  ),
);

async function work(): Promise<void> {
  for (let next = left.shift(); next !== undefined; next = left.shift()) await next();
}

await Promise.all(Array.from({ length: AT_ONCE }, work));
