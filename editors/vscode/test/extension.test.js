// The extension against a stand-in for the editor: what it says and starts.
"use strict";

const assert = require("node:assert");
const fs = require("node:fs");
const Module = require("node:module");
const os = require("node:os");
const path = require("node:path");
const test = require("node:test");

/** @type {Record<string, unknown>} */
let settings = {};
/** @type {string[]} */
let events = [];
/** @type {Map<string, (...given: unknown[]) => Promise<void>>} */
const commands = new Map();
/** @type {{ provideTextDocumentContent(uri: { path: string }): Promise<string> } | undefined} */
let pages;
/** @type {((change: { affectsConfiguration(name: string): boolean }) => Promise<void>) | undefined} */
let configure;

const disposable = { dispose() {} };
const vscode = {
  commands: {
    /** @type {(name: string, run: (...given: unknown[]) => Promise<void>) => object} */
    registerCommand: (name, run) => (commands.set(name, run), disposable),
    /** @type {(name: string, uri: { path: string }) => Promise<void>} */
    executeCommand: async (name, uri) => void events.push(`${name} ${uri.path}`),
  },
  Uri: { from: (/** @type {object} */ parts) => parts },
  window: {
    showErrorMessage: async (/** @type {string} */ message) => void events.push(message),
  },
  workspace: {
    createFileSystemWatcher: () => disposable,
    getConfiguration: () => ({
      /** @type {(name: string, otherwise: unknown) => unknown} */
      get: (name, otherwise) => settings[name] ?? otherwise,
    }),
    onDidChangeConfiguration: (/** @type {typeof configure} */ listener) => {
      configure = listener;
      return disposable;
    },
    openTextDocument: (/** @type {{ path: string }} */ uri) => pages?.provideTextDocumentContent(uri),
    registerTextDocumentContentProvider: (
      /** @type {string} */ _scheme,
      /** @type {typeof pages} */ provider,
    ) => {
      pages = provider;
      return disposable;
    },
  },
};

class LanguageClient {
  /**
   * @param {string} _id
   * @param {string} _name
   * @param {{ command: string, args: string[] }} server
   */
  constructor(_id, _name, server) {
    this.server = server;
    this.running = false;
  }
  needsStop() {
    return this.running;
  }
  async start() {
    await new Promise((resolve) => setTimeout(resolve, 20));
    if (this.server.args.includes("broken")) throw new Error("no answer");
    this.running = true;
    events.push(`start ${path.basename(this.server.command)} ${this.server.args.join(" ")}`);
  }
  async dispose() {
    if (!this.running) throw new Error("not running");
    events.push("stop");
  }
}

/** @type {{ _load(request: string, ...rest: unknown[]): unknown }} */
const loader = /** @type {any} */ (Module);
const load = loader._load;
loader._load = (request, ...rest) => {
  if (request === "vscode") return vscode;
  if (request === "vscode-languageclient/node") return { LanguageClient };
  return load.call(loader, request, ...rest);
};
const { activate, deactivate } = require("../extension.js");

const folder = fs.mkdtempSync(path.join(os.tmpdir(), "govc-"));
test.after(() => fs.rmSync(folder, { recursive: true }));

/**
 * A program that stands for govc.
 * @param {string} name
 * @param {string} script
 */
function program(name, script) {
  const file = path.join(folder, name);
  fs.writeFileSync(file, `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  return file;
}

test("the extension", { skip: process.platform === "win32" }, async (t) => {
  settings = { path: path.join(folder, "missing") };
  await activate(/** @type {any} */ ({ subscriptions: [] }));

  await t.test("says what to do about a missing program", () => {
    assert.match(events.join(), /missing` was not found.*`govc.path`/);
  });

  await t.test("says why an old program does not start", async () => {
    events = [];
    settings = { path: program("old", "echo \"error: unrecognized subcommand 'lsp'\" >&2; exit 2") };
    await configure?.({ affectsConfiguration: () => true });
    assert.match(events.join(), /old lsp` does not start.*unrecognized subcommand/);
  });

  await t.test("says that a server broke, and starts the next one", async () => {
    events = [];
    settings = { path: program("new", "exit 0"), "lsp.arguments": ["broken"] };
    await configure?.({ affectsConfiguration: () => true });
    settings = { path: settings.path };
    await configure?.({ affectsConfiguration: () => true });
    assert.deepStrictEqual(events, ["govc: no answer", "start new lsp"]);
  });

  await t.test("starts one server at a time", async () => {
    events = [];
    settings = { path: program("govc", 'echo "{\\"page\\":\\"# $2\\"}"') };
    const restart = commands.get("govc.restart");
    assert(restart);
    await Promise.all([restart(), restart()]);
    assert.deepStrictEqual(events, ["stop", "start govc lsp", "stop", "start govc lsp"]);
  });

  await t.test("shows the page of a code", async () => {
    events = [];
    const explain = commands.get("govc.explain");
    await explain?.("gov1001");
    assert.deepStrictEqual(events, ["markdown.showPreview /GOV1001.md"]);
    assert.strictEqual(await pages?.provideTextDocumentContent({ path: "/GOV1001.md" }), "# GOV1001");
    events = [];
    await explain?.("--help");
    assert.match(events.join(), /no diagnostic code/);
  });

  await t.test("stops its server", async () => {
    events = [];
    await deactivate();
    assert.deepStrictEqual(events, ["stop"]);
  });
});
