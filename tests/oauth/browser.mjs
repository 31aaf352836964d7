// What a user's browser does and sees on the way from a ticket to the caller's page, in Chromium.
// arguments: CERTIFICATE KEY BASE BANK. It prints the port of the caller's page; then it asks on its output, a line each,
// and is answered on its input: "ticket", "connections", "later SECONDS", "seen EVENT". It ends with "done".
import https from 'node:https';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { chromium } from 'playwright-core';

const [certificate, key, base, bank] = process.argv.slice(2);
const shots = process.env.SHOTS ?? 'shots';
mkdirSync(shots, { recursive: true });

const check = (holds, what) => {
  if (!holds) throw new Error(what);
};
// When it fails, this is on the error output.
const step = (name) => console.error(`${(performance.now() / 1000).toFixed(1)} ${name}`);
const same = (found, expected, what) => check(found === expected, `${what}: ${found}, and not ${expected}`);

// The caller's page.
const arrivals = [];
const app = https.createServer({ cert: readFileSync(certificate), key: readFileSync(key) }, (request, response) => {
  if (request.url.startsWith('/done')) arrivals.push({ url: request.url, headers: request.headers });
  response.setHeader('content-type', 'text/html');
  response.end('<!doctype html><title>Ledger</title><link rel="icon" href="data:,"><h1>Back in the ledger</h1>');
});
await new Promise((listening) => app.listen(0, '127.0.0.1', listening));
const home = `https://app.test:${app.address().port}/`;
console.log(`port ${app.address().port}`);

const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const ask = async (line) => {
  console.log(line);
  return (await answers.next()).value;
};

const browser = await chromium.launch({
  executablePath: process.env.PATH.split(':').map((folder) => `${folder}/chromium`).find((path) => existsSync(path)),
  args: [
    '--host-resolver-rules=MAP connect.test 127.0.0.1, MAP bank.test 127.0.0.1, MAP app.test 127.0.0.1, MAP * ~NOTFOUND',
    '--disable-gpu', '--disable-background-networking', '--disable-component-update', '--disable-sync', '--no-first-run',
  ],
});

// What no page of ours may bring about, in whichever window.
const complaints = [];
const origins = [base, bank, home].map((url) => new URL(url).origin);
const looks = [];

// A browser of its own: cookies, and no others' history.
const person = async (options = {}) => {
  const context = await browser.newContext({ ignoreHTTPSErrors: true, ...options });
  context.setDefaultTimeout(40_000);
  context.on('request', (request) => {
    const url = new URL(request.url());
    // What the bank's own pages load is theirs.
    const ours = url.protocol === 'data:' || origins.includes(url.origin) || request.frame().url().startsWith(bank);
    if (!ours) complaints.push(`a request to ${url.origin}`);
    looks.push(request.allHeaders().then(({ referer }) => {
      if (referer && (referer.startsWith(base) || url.origin === new URL(home).origin)) {
        complaints.push(`a Referer for ${url.origin}${url.pathname}: ${referer}`);
      }
    }, () => {}));
  });
  context.on('page', async (page) => {
    page.on('console', (message) => {
      if (!page.url().startsWith(bank)) complaints.push(`the console of ${page.url()}: ${message.text()}`);
    });
  });
  context.window = async () => {
    const page = await context.newPage();
    const session = await context.newCDPSession(page);
    await session.send('Audits.enable');
    session.on('Audits.issueAdded', ({ issue }) => {
      const details = JSON.stringify(issue.details);
      if (issue.code === 'ContentSecurityPolicyIssue' && !details.includes(bank)) complaints.push(details);
    });
    return page;
  };
  return context;
};

const heading = async (page) => {
  same(await page.locator('h1').count(), 1, 'headings');
  return page.locator('h1').innerText();
};
const shot = (page, name) => page.screenshot({ path: `${shots}/${name}.png`, fullPage: true });
const at = (page, url) => page.waitForURL((now) => now.href.startsWith(url));

// From a ticket to the bank.
const begin = async (page, ticket) => {
  await page.goto(ticket);
  same(await heading(page), 'Connect your account', 'the ticket');
  await page.getByRole('button', { name: 'Continue to bank' }).click();
  await at(page, bank);
};
// At the bank, up to its question; there is none where the same user has answered it.
const signIn = async (page, who) => {
  await page.locator('input[name=login]').fill(who);
  await page.locator('input[name=password]').fill('x');
  await page.getByRole('button').click();
};
const consent = (page) => page.getByRole('button', { name: /continue/i }).click();
const connected = async (page) => {
  await at(page, `${home}done`);
  const parameters = new URL(page.url()).searchParams;
  same([...parameters.keys()].join(), 'tab,connection,state', 'the return URL');
  same(parameters.get('tab') + parameters.get('state'), '2session-1', 'the return URL');
  check(/^mxc_[0-9a-f]{32}$/.test(parameters.get('connection')), page.url());
  return parameters.get('connection');
};
const refused = async (page) => {
  same(await heading(page), 'This link does not work', page.url());
};
// Stops the way back from the bank before it reaches us: what a thief would have seen of it. (Playwright's own routes see
// no redirects.)
const stolen = async (page) => {
  const session = await page.context().newCDPSession(page);
  await session.send('Fetch.enable', { patterns: [{ urlPattern: `${base}callback*` }] });
  const url = new Promise((seen) => {
    session.once('Fetch.requestPaused', async ({ request, requestId }) => {
      await session.send('Fetch.failRequest', { requestId, errorReason: 'Aborted' });
      await session.send('Fetch.disable');
      seen(request.url);
    });
  });
  return () => url;
};

step('the whole way');
// The whole way, with the keyboard alone on our page; the bank knows the user the second time and sends it through.
const alice = await person();
const first = await alice.window();
const ticket = await ask('ticket');
await first.goto(ticket);
await shot(first, 'ticket');
same(await first.locator('html').getAttribute('lang'), 'en', 'lang');
check((await first.locator('body').innerText()).includes('mx:read'), 'no scopes');
await first.keyboard.press('Tab');
await first.keyboard.press('Enter');
await at(first, bank);
await signIn(first, 'alice');
await consent(first);
await connected(first);
same(await ask('connections'), '1', 'connections');
same((await alice.cookies(base)).length, 0, 'cookies that stay');

step('a used ticket');
// A used ticket, here and in another window; and the way back through the history.
const second = await alice.window();
await second.goto(ticket);
await refused(second);
await shot(second, 'unknown');
for (let steps = 0; steps < 8 && !first.url().startsWith('about:'); steps += 1) {
  await first.goBack().catch(() => {});
  step(`back at ${first.url()}`);
  check(!first.url().startsWith(`${home}done`), 'back, and still there');
  if (first.url().startsWith(base)) await refused(first);
}
same(await ask('connections'), '1', 'connections after going back');

step('known at the bank');
// Known at the bank: from the button to the end without a page of the bank's.
await second.goto(await ask('ticket'));
await second.getByRole('button').click();
await connected(second);

step('two windows');
// Two windows with one ticket.
const both = [await alice.window(), await alice.window()];
const shared = await ask('ticket');
await Promise.all(both.map((page) => page.goto(shared)));
await both[0].getByRole('button').click();
await connected(both[0]);
await both[1].getByRole('button').click();
await both[1].getByText('This link does not work').waitFor();

step('two attempts');
// Two attempts in one browser, the later one finished first.
const bob = await person();
const [one, other] = [await bob.window(), await bob.window()];
await begin(one, await ask('ticket'));
await begin(other, await ask('ticket'));
same((await bob.cookies(base)).length, 2, 'cookies of two attempts');
for (const cookie of await bob.cookies(base)) {
  check(cookie.httpOnly && cookie.secure && cookie.sameSite === 'Lax', JSON.stringify(cookie));
}
await signIn(other, 'bob');
await consent(other);
const later = await connected(other);
await signIn(one, 'bob');
check((await connected(one)) !== later, 'one connection for two attempts');

step('back and forward');
// Back from the bank, and forward again.
const carol = await person({ colorScheme: 'dark' });
const back = await carol.window();
const darkTicket = await ask('ticket');
await back.goto(darkTicket);
await shot(back, 'ticket-dark');
await back.getByRole('button').click();
await at(back, bank);
await back.goBack();
await refused(back);
await back.goForward();
await at(back, bank);
await signIn(back, 'carol');
await consent(back);
await connected(back);

// The page between, which is gone before anybody could look at it.
const { port, pathname, host: named } = new URL(await ask('ticket'));
const between = await new Promise((resolve, reject) => {
  const headers = { host: named, 'sec-fetch-site': 'same-origin', 'content-length': 0 };
  https.request({ host: '127.0.0.1', port, path: pathname, method: 'POST', headers, rejectUnauthorized: false }, (answer) => {
    answer.setEncoding('utf8').toArray().then((parts) => resolve(parts.join('')), reject);
  }).on('error', reject).end();
});
const still = await carol.window();
await still.setContent(between.replace(/<meta http-equiv[^>]*>/, ''));
same(await heading(still), 'Continue to bank', 'the page between');
await shot(still, 'away-dark');

step('a refusal');
// The user says no.
const dave = await person({ colorScheme: 'dark' });
const no = await dave.window();
await begin(no, await ask('ticket'));
await no.locator('a[href$="/abort"]').click();
await at(no, base);
same(await heading(no), 'Not connected', 'a refusal');
await shot(no, 'refused-dark');
const before = arrivals.length;
await no.getByRole('link', { name: 'Back to ledger' }).click();
await at(no, `${home}done?tab=2&error=access_denied&state=session-1`);
same(arrivals.length, before + 1, 'arrivals');

step('a stolen way there');
// Another browser with the URL that the first one was sent to: it may consent there, and gets nothing.
const eve = await person();
const [victim, thief] = [await (await person()).window(), await eve.window()];
const sent = victim.waitForRequest((request) => request.url().startsWith(`${bank}auth?`));
await begin(victim, await ask('ticket'));
const count = await ask('connections');
await thief.goto((await sent).url());
await signIn(thief, 'eve');
await consent(thief);
await at(thief, base);
await refused(thief);
same(await ask('connections'), count, 'connections of a thief');
same(await ask('seen TurnedAway(OtherBrowser)'), 'true', 'a record of it');
await signIn(victim, 'victim');

step('a stolen way back');
// Another browser with the URL that the bank sent the first one back to; which can still use it.
const way = await stolen(victim);
await consent(victim).catch(() => {});
const callback = await way();
await thief.goto(callback);
await refused(thief);
same(await ask('connections'), count, 'connections of a thief');
await victim.goto(callback);
await connected(victim);
same(await ask('connections'), String(Number(count) + 1), 'the victim is connected');
await victim.goto(callback);
await refused(victim);

step('too late');
// Too late: the state is over, and so is a ticket.
const late = await (await person()).window();
await begin(late, await ask('ticket'));
await signIn(late, 'late');
await ask('later 301');
await consent(late);
await at(late, base);
await refused(late);
const old = await ask('ticket');
await ask('later 601');
await late.goto(old);
await refused(late);

step('a failure');
// What the bank says is in our words; on a small window, and in one of a page that is enlarged to 200 %.
const small = await person({ viewport: { width: 320, height: 480 } });
const narrow = await small.window();
await narrow.goto(await ask('ticket'));
await shot(narrow, 'ticket-narrow');
const overflow = () => narrow.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
same(await overflow(), 0, 'a narrow page that must be scrolled sideways');
const turned = await stolen(narrow);
await narrow.getByRole('button').click();
await at(narrow, bank);
await signIn(narrow, 'frank');
await consent(narrow).catch(() => {});
const failing = new URL(await turned());
failing.searchParams.delete('code');
failing.searchParams.set('error', 'made_up');
failing.searchParams.set('error_description', '<h1>c4n4ry</h1>');
await narrow.goto(failing.href);
same(await heading(narrow), 'Not connected', 'a failure');
check(!(await narrow.content()).includes('c4n4ry') && !(await narrow.content()).includes('made_up'), 'an echo');
await shot(narrow, 'failed-narrow');
same(await overflow(), 0, 'a narrow page that must be scrolled sideways');
await narrow.getByRole('link', { name: 'Back to ledger' }).click();
await at(narrow, `${home}done?tab=2&error=server_error&state=session-1`);

step('another site');
// Another site's page with the form of ours.
const mallory = await (await person()).window();
const target = await ask('ticket');
await mallory.goto(home);
await mallory.evaluate((action) => {
  const form = Object.assign(document.createElement('form'), { method: 'post', action });
  document.body.append(form);
  form.submit();
}, target);
await at(mallory, base);
same(await heading(mallory), 'That did not come from this page', 'a form of another site');
await shot(mallory, 'cross-site');
await begin(mallory, target);

await Promise.all(looks);
// A page that is refused says so in its status, which the console repeats.
const expected = /Failed to load resource: the server responded with a status of (403|404|502)/;
const left = complaints.filter((complaint) => !expected.test(complaint));
same(left.join('\n'), '', 'complaints');
for (const { url, headers } of arrivals) {
  check(!('referer' in headers) && !('cookie' in headers), JSON.stringify(headers));
  check(!/code|token|ticket/.test(url), url);
}
await browser.close();
console.log('done');
process.exit(0);
