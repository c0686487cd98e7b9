// The page in a real browser, against the real server: `IRIS=path/to/iris npm test`.
import assert from "node:assert/strict";
import { createReadStream, existsSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join, resolve } from "node:path";
import { after, before, test } from "node:test";
import { pathToFileURL } from "node:url";
import { type Browser, chromium, type Page } from "playwright-core";

import { Iris, Wire } from "../../typescript/test/server.js";

const LIMIT = { timeout: 60_000 };
const HERE = resolve(".");
const FOUND = [process.env.CHROMIUM ?? "", "/usr/bin/chromium", "/usr/bin/chromium-browser"].find(existsSync);
const MISSING = "there is no Chromium: install the package `chromium`, or set CHROMIUM";
const skip = !FOUND && process.env.CI !== "true" && MISSING;

let iris: Iris;
let browser: Browser;
let token: string;
/** A web server with the page, whose origin the server lets call. */
const web = createServer((request, response) => {
  const path = request.url === "/dist/page.js" ? "dist/page.js" : "index.html";
  response.setHeader("content-type", path.endsWith(".js") ? "text/javascript" : "text/html");
  createReadStream(join(HERE, path)).pipe(response);
});

before(async () => {
  if (skip) return;
  assert.ok(FOUND, MISSING);
  web.listen(0, "127.0.0.1");
  await new Promise((listening) => web.once("listening", listening));
  iris = await Iris.start({ IRIS_ALLOWED_ORIGINS: `null,${webUrl()}` });
  token = (await iris.setUp()).accessToken;
  // Users other than root have a sandbox for it; here it shows a page of our own.
  browser = await chromium.launch({ executablePath: FOUND, args: ["--no-sandbox"] });
}, LIMIT);
after(async () => {
  await browser?.close();
  web.close();
  await iris?.remove();
}, LIMIT);

function webUrl(): string {
  return `http://127.0.0.1:${(web.address() as AddressInfo).port}`;
}

/** The page, with somebody who is in a new session. */
async function enter(address: string, url = iris.url): Promise<Page> {
  const page = await open(address);
  await logIn(page, url, token);
  await page.locator("[name=session] option").first().waitFor({ state: "attached" });
  await page.selectOption("[name=session]", "new");
  await page.getByRole("button", { name: "Enter" }).click();
  await page.getByLabel("Message").waitFor();
  return page;
}

async function open(address: string): Promise<Page> {
  const page = await browser.newPage();
  page.on("pageerror", (error) => assert.fail(error));
  await page.goto(address);
  return page;
}

async function logIn(page: Page, url: string, secret: string): Promise<void> {
  await page.getByLabel("Address of the server").fill(url);
  await page.getByLabel("Token or API key").fill(secret);
  await page.getByRole("button", { name: "Connect" }).click();
}

async function send(page: Page, text: string): Promise<void> {
  await page.getByLabel("Message").fill(text);
  await page.getByRole("button", { name: "Send" }).click();
}

function answer(page: Page) {
  return page.locator("#log .assistant").last();
}

const FROM_DISK = pathToFileURL(join(HERE, "index.html")).href;

test("a page from the disk shows a conversation as it streams", { ...LIMIT, skip }, async () => {
  const page = await enter(FROM_DISK);
  await send(page, "say Hello, <b>browser</b>.");
  await page.getByText("[completed]").waitFor();
  assert.equal(await answer(page).textContent(), "Hello, <b>browser</b>.");
  // Whoever comes later sees the same.
  const other = await open(FROM_DISK);
  await logIn(other, iris.url, token);
  await other.locator("[name=session] option").first().waitFor({ state: "attached" });
  await other.getByRole("button", { name: "Enter" }).click();
  await other.getByText("say Hello").waitFor();
  assert.equal(await answer(other).textContent(), "Hello, <b>browser</b>.");
  await Promise.all([page.close(), other.close()]);
});

test("a tool that asks is answered by a button", { ...LIMIT, skip }, async () => {
  const page = await enter(webUrl());
  await send(page, 'call write {"path": "a.txt", "content": "1"}');
  await page.getByRole("button", { name: "Approve" }).click();
  await page.getByText("[completed]").waitFor();
  assert.equal(await page.getByRole("button", { name: "Approve" }).count(), 0);
  await page.close();
});

test("a connection that is cut in the middle of an answer costs nothing", { ...LIMIT, skip }, async () => {
  const wire = new Wire(iris.port);
  try {
    const page = await enter(webUrl(), await wire.url());
    await send(page, "delay 5\nchunks 300 grüße");
    for (const length of [20, 200, 600]) {
      await page.waitForFunction((least) => {
        const lines = document.querySelectorAll("#log .assistant");
        return (lines[lines.length - 1]?.textContent ?? "").length > least;
      }, length);
      wire.cut();
      await page.getByText("coming back").waitFor();
      await page.getByRole("status").getByText("connected", { exact: true }).waitFor();
    }
    await page.getByText("[completed]").waitFor();
    assert.equal(await answer(page).textContent(), "grüße ".repeat(300));
    assert.equal(await page.locator("#log .user").count(), 1);
    await page.close();
  } finally {
    wire.close();
  }
});

test("a token that is refused, and a page that may not call, are said so", { ...LIMIT, skip }, async () => {
  const page = await open(FROM_DISK);
  await logIn(page, iris.url, "no token");
  await page.getByRole("status").getByText(/4401/).waitFor();
  // The same page under a name that the server does not list.
  const other = await open(webUrl().replace("127.0.0.1", "localhost"));
  await logIn(other, iris.url, token);
  await other.getByText(/lost the connection|closed/).waitFor();
  await Promise.all([page.close(), other.close()]);
});
