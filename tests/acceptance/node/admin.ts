/**
 * Drives a server's Admin API through the official SDK's typed calls.
 *
 * Anything that is not as it must be throws: the exit status tells.
 */

import assert from 'node:assert/strict';
import Anthropic, {
  BadRequestError,
  ConflictError,
  NotFoundError,
  PermissionDeniedError,
} from '@anthropic-ai/sdk';

const client = new Anthropic({
  baseURL: process.env.BASE_URL!,
  apiKey: process.env.API_KEY!,
  maxRetries: 0,
});
const organization = client.beta.organization;

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = [];
  for await (const item of items) found.push(item);
  return found;
}

/** What is ours beside the SDK. */
async function post(path: string, body: object, key = process.env.API_KEY!): Promise<any> {
  const answer = await fetch(process.env.BASE_URL! + path, {
    method: 'POST',
    headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  assert.ok(answer.ok, `${path}: ${answer.status} ${await answer.clone().text()}`);
  return answer.json();
}

const me = await organization.retrieve();
assert.equal(me.type, 'organization');

const workspace = await organization.workspaces.create({ name: 'Research', tags: { team: 'a' } });
assert.deepEqual(workspace.tags, { team: 'a' });
const renamed = await organization.workspaces.update(workspace.id, { name: 'Lab' });
assert.equal(renamed.name, 'Lab');
await organization.workspaces.create({ name: 'Second' });
const walked = await collect(organization.workspaces.list({ limit: 1 }));
assert.deepEqual(walked.map((each) => each.name), ['Second', 'Lab']);

const invite = await organization.invites.create({ email: 'ada@example.org', role: 'developer' });
assert.equal((await organization.invites.retrieve(invite.id)).status, 'pending');
await assert.rejects(
  organization.invites.create({ email: 'ada@example.org', role: 'user' }),
  ConflictError,
);
assert.equal((await organization.invites.delete(invite.id)).type, 'invite_deleted');
assert.deepEqual(await collect(organization.users.list()), []);

const account = await organization.serviceAccounts.create({ name: 'ci' });
const member = await organization.serviceAccounts.workspaces.add(account.id, {
  workspace_id: workspace.id,
  workspace_role: 'workspace_developer',
});
assert.equal(member.workspace_id, workspace.id);
assert.equal((await organization.serviceAccounts.archive(account.id)).name, 'ci');

const keys = await collect(organization.apiKeys.list());
assert.ok(keys.length > 0);
assert.equal((await organization.apiKeys.retrieve(keys[0]!.id)).id, keys[0]!.id);

assert.deepEqual(await collect(organization.rateLimits.list()), []);
const limit = await organization.spendLimits.set({
  amount: '50000',
  scope: { type: 'workspace', workspace_id: workspace.id },
});
assert.equal((await organization.spendLimits.retrieve(limit.id)).amount, '50000');
assert.equal((await organization.spendLimits.delete(limit.id)).type, 'spend_limit_deleted');

const person = await post('/api/admin/users', { email: 'eve@example.org', name: 'Eve' });
const hers = await post('/api/admin/keys', { name: 'hers', user_id: person.id });
const place = '/v1/organizations/spend_limit_increase_requests';
for (const period of ['daily', 'weekly']) await post(place, { period }, hers.key);
const requests = organization.spendLimits.increaseRequests;
const pending = await collect(requests.list({ limit: 1, status: ['pending'] }));
assert.deepEqual(pending.map((each) => each.period), ['weekly', 'daily']);
assert.deepEqual(await collect(requests.list({ actor_ids: ['user_nobody'] })), []);
const approved = await requests.approve(pending[0]!.id, { amount: '2500' });
assert.equal(approved.status, 'approved');
assert.equal(approved.spend_limit?.amount, '2500');
assert.equal((await requests.retrieve(pending[1]!.id)).status, 'pending');
assert.equal((await requests.deny(pending[1]!.id, {})).status, 'denied');
await assert.rejects(requests.deny(pending[0]!.id, {}), BadRequestError);
assert.equal((await organization.users.signOut(person.id)).id, person.id);

const since = new Date(Date.now() - 3_600_000).toISOString();
const cost = await collect(organization.analytics.costReport.list({ starting_at: since }));
assert.ok(cost.length > 0);

await assert.rejects(organization.users.retrieve('user_nobody'), NotFoundError);
await assert.rejects(organization.rbacGroups.list(), NotFoundError);
const user = new Anthropic({
  baseURL: process.env.BASE_URL!,
  apiKey: process.env.USER_KEY!,
  maxRetries: 0,
});
await assert.rejects(user.beta.organization.users.list(), PermissionDeniedError);
console.log('admin: ok');
