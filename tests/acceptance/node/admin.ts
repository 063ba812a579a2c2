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

/** What was asked for, as `METHOD /path`: printed at the end, so that no route is left out. */
const asked = new Set<string>();

const client = new Anthropic({
  baseURL: process.env.BASE_URL!,
  apiKey: process.env.API_KEY!,
  maxRetries: 0,
  fetch: (url, init) => {
    asked.add(`${(init?.method ?? 'GET').toUpperCase()} ${new URL(String(url)).pathname}`);
    return fetch(url, init);
  },
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

async function patch(path: string, body: object): Promise<void> {
  const answer = await fetch(process.env.BASE_URL! + path, {
    method: 'PATCH',
    headers: {
      authorization: `Bearer ${process.env.API_KEY}`,
      'content-type': 'application/json',
    },
    body: JSON.stringify(body),
  });
  assert.ok(answer.ok, `${path}: ${answer.status} ${await answer.clone().text()}`);
}

const me = await organization.retrieve();
assert.equal(me.type, 'organization');

const workspace = await organization.workspaces.create({ name: 'Research', tags: { team: 'a' } });
assert.deepEqual(workspace.tags, { team: 'a' });
const renamed = await organization.workspaces.update(workspace.id, { name: 'Lab' });
assert.equal(renamed.name, 'Lab');
assert.deepEqual(await organization.workspaces.retrieve(workspace.id), renamed);
await organization.workspaces.create({ name: 'Second' });
const walked = await collect(organization.workspaces.list({ limit: 1 }));
assert.deepEqual(walked.map((each) => each.name), ['Second', 'Lab']);

const invite = await organization.invites.create({ email: 'ada@example.org', role: 'developer' });
assert.equal((await organization.invites.retrieve(invite.id)).status, 'pending');
assert.deepEqual((await collect(organization.invites.list())).map((each) => each.id), [invite.id]);
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
const places = organization.serviceAccounts.workspaces;
assert.deepEqual(await collect(places.list(account.id)), [member]);
await places.remove(workspace.id, { service_account_id: account.id });
const beside = organization.workspaces.serviceAccounts;
const here = { workspace_id: workspace.id };
await beside.add(workspace.id, {
  service_account_id: account.id,
  workspace_role: 'workspace_user',
});
const raised = await beside.update(account.id, { ...here, workspace_role: 'workspace_developer' });
assert.equal(raised.workspace_role, 'workspace_developer');
assert.deepEqual(await beside.retrieve(account.id, here), raised);
assert.deepEqual(await collect(beside.list(workspace.id)), [raised]);
await beside.remove(account.id, here);
await assert.rejects(beside.retrieve(account.id, here), NotFoundError);
const described = await organization.serviceAccounts.update(account.id, { description: 'Builds.' });
assert.deepEqual(await organization.serviceAccounts.retrieve(account.id), described);
assert.deepEqual(await collect(organization.serviceAccounts.list()), [described]);
assert.equal((await organization.serviceAccounts.archive(account.id)).name, 'ci');

const keys = await collect(organization.apiKeys.list());
assert.ok(keys.length > 0);
assert.equal((await organization.apiKeys.retrieve(keys[0]!.id)).id, keys[0]!.id);

const spare = await post('/api/admin/keys', { name: 'spare' });
const off = await organization.apiKeys.update(spare.id, { name: 'off', status: 'inactive' });
assert.deepEqual([off.name, off.status], ['off', 'inactive']);

assert.deepEqual(await collect(organization.rateLimits.list()), []);
await patch('/api/admin/organization', { limits: { requests_per_minute: 5000 } });
const [group] = await collect(organization.rateLimits.list());
const rate = await organization.workspaces.rateLimits.update(group!.id, {
  ...here,
  limits: [{ type: 'requests_per_minute', value: 4000 }],
});
assert.equal(rate.limits[0]?.value, 4000);
assert.deepEqual(await collect(organization.workspaces.rateLimits.list(workspace.id)), [rate]);
const limit = await organization.spendLimits.set({
  amount: '50000',
  scope: { type: 'workspace', workspace_id: workspace.id },
});
assert.equal((await organization.spendLimits.retrieve(limit.id)).amount, '50000');
assert.deepEqual(await collect(organization.spendLimits.list(here)), [limit]);
assert.equal((await organization.spendLimits.delete(limit.id)).type, 'spend_limit_deleted');

const person = await post('/api/admin/users', { email: 'eve@example.org', name: 'Eve' });
assert.equal((await organization.users.update(person.id, { role: 'developer' })).role, 'developer');
assert.equal((await organization.users.retrieve(person.id)).email, 'eve@example.org');
const members = organization.workspaces.members;
await members.add(workspace.id, { user_id: person.id, workspace_role: 'workspace_user' });
const better = await members.update(person.id, { ...here, workspace_role: 'workspace_admin' });
assert.equal(better.workspace_role, 'workspace_admin');
assert.deepEqual(await members.retrieve(person.id, here), better);
assert.deepEqual(await collect(members.list(workspace.id)), [better]);
assert.equal((await members.remove(person.id, here)).user_id, person.id);
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

const [effective] = await collect(organization.spendLimits.effective.list({ user_ids: [person.id] }));
assert.equal(effective?.amount, '2500');

for (const model of ['haiku', 'sonnet', 'haiku']) {
  await post('/v1/messages', {
    model,
    max_tokens: 50,
    messages: [{ role: 'user', content: 'Hi.' }],
  });
}
const ledger = await (
  await fetch(`${process.env.BASE_URL}/v1/usage`, {
    headers: { authorization: `Bearer ${process.env.API_KEY}` },
  })
).json();
/** Ten-thousandths of a cent, which are micro-dollars: decimal text, never a float. */
const micros = (cents: string): bigint => {
  const [whole, part = ''] = cents.split('.');
  assert.ok(part.length <= 4, cents);
  return BigInt(whole + part.padEnd(4, '0'));
};
const since = new Date(Date.now() - 3_600_000).toISOString();
const cost = await collect(organization.analytics.costReport.list({ starting_at: since }));
const spent = cost.flatMap((each) => each.results).map((each) => micros(each.amount));
assert.equal(
  spent.reduce((all, each) => all + each, 0n),
  BigInt(Math.round(ledger.total_cost * 1_000_000)),
);
assert.ok(ledger.total_cost > 0);
const used = await collect(organization.analytics.usageReport.list({ starting_at: since }));
const calls = used.flatMap((each) => each.results).map((each) => each.requests ?? 0);
assert.equal(calls.reduce((all, each) => all + each, 0), 3);

assert.equal((await organization.users.remove(person.id)).id, person.id);
assert.ok((await organization.workspaces.archive(workspace.id)).archived_at);

await assert.rejects(organization.users.retrieve('user_nobody'), NotFoundError);
await assert.rejects(organization.rbacGroups.list(), NotFoundError);
const user = new Anthropic({
  baseURL: process.env.BASE_URL!,
  apiKey: process.env.USER_KEY!,
  maxRetries: 0,
});
await assert.rejects(user.beta.organization.users.list(), PermissionDeniedError);
for (const each of asked) console.log(`asked: ${each}`);
console.log('admin: ok');
