// Starts `govc lsp` for policies, and shows the pages of diagnostic codes.
"use strict";

const { execFile } = require("node:child_process");
const vscode = require("vscode");
const { LanguageClient } = require("vscode-languageclient/node");

const PAGES = "govc-page";
const CODE = /^GOV\d{4}$/;

/** @type {LanguageClient | undefined} */
let client;
/**
 * Packages that are used, and the numbers of their names, need not be open.
 * @type {vscode.FileSystemWatcher[]}
 */
let watchers = [];
/**
 * Starts and stops wait for the one before: a client that is starting cannot be stopped.
 * @type {Promise<void>}
 */
let turn = Promise.resolve();

/** @param {vscode.ExtensionContext} context */
function activate(context) {
  watchers = ["**/*.gov", "**/*.lock"].map((glob) =>
    vscode.workspace.createFileSystemWatcher(glob),
  );
  context.subscriptions.push(
    ...watchers,
    vscode.commands.registerCommand("govc.restart", restart),
    vscode.commands.registerCommand("govc.explain", explain),
    vscode.workspace.registerTextDocumentContentProvider(PAGES, {
      provideTextDocumentContent: (uri) => page(uri.path.slice(1, -".md".length)),
    }),
    vscode.workspace.onDidChangeConfiguration((change) => {
      if (["govc.path", "govc.lsp"].some((name) => change.affectsConfiguration(name))) {
        return restart();
      }
    }),
  );
  return restart();
}

function deactivate() {
  return inTurn(stop);
}

function restart() {
  return inTurn(async () => {
    await stop();
    await start();
  });
}

/**
 * @param {() => Promise<void>} action
 * @returns {Promise<void>}
 */
function inTurn(action) {
  turn = turn.then(action).catch((error) => {
    vscode.window.showErrorMessage(`govc: ${error instanceof Error ? error.message : error}`);
  });
  return turn;
}

async function start() {
  const { program, lsp } = settings();
  // Asked for its help first, because a program that is missing or too old to have a language
  // server otherwise only shows as a connection that breaks five times.
  const failure = await run(program, [...lsp, "--help"]).then(
    () => undefined,
    (error) => error,
  );
  if (failure) {
    // Nobody waits for an answer: whoever changes the setting starts the server with it.
    void offerSettings(whyNot(program, lsp, failure));
    return;
  }
  client = new LanguageClient(
    "govc",
    "govc",
    { command: program, args: lsp },
    {
      documentSelector: [
        { language: "gov", scheme: "file" },
        { language: "gov", scheme: "untitled" },
      ],
      synchronize: { fileEvents: watchers },
    },
  );
  await client.start();
}

async function stop() {
  const stopping = client;
  client = undefined;
  // A client whose server did not start cannot be stopped.
  if (!stopping?.needsStop()) return;
  // A server that does not answer is ended all the same, and the next one can start.
  await stopping.dispose().catch(() => undefined);
}

/** What the settings say, read anew each time. */
function settings() {
  const settings = vscode.workspace.getConfiguration("govc");
  return {
    program: settings.get("path", "") || "govc",
    lsp: settings.get("lsp.arguments", ["lsp"]),
  };
}

/**
 * @param {string} program
 * @param {string[]} lsp
 * @param {NodeJS.ErrnoException} failure
 */
function whyNot(program, lsp, failure) {
  if (failure.code === "ENOENT") {
    return `\`${program}\` was not found. Install govc, or set \`govc.path\` to the program.`;
  }
  if (failure.code === "EACCES") {
    return `\`${program}\` is not a program that may be run. Set \`govc.path\` to govc.`;
  }
  return `\`${[program, ...lsp].join(" ")}\` does not start a language server: ${failure.message}`;
}

/** @param {string} message */
async function offerSettings(message) {
  const open = "Open settings";
  if ((await vscode.window.showErrorMessage(message, open)) === open) {
    await vscode.commands.executeCommand("workbench.action.openSettings", "govc.path");
  }
}

/**
 * Shows the page of a code: of one that another extension or a key binding gives, of the
 * diagnostic at the cursor, or of one that is asked for.
 * @param {unknown} [given]
 */
async function explain(given) {
  const code =
    typeof given === "string"
      ? given
      : await vscode.window.showInputBox({
          prompt: "Diagnostic code",
          placeHolder: "GOV1001",
          value: codeAtCursor(),
          validateInput: (text) =>
            CODE.test(text.trim().toUpperCase()) ? undefined : "A code is GOV and four digits.",
        });
  if (!code) return;
  const id = code.trim().toUpperCase();
  if (!CODE.test(id)) {
    vscode.window.showErrorMessage(`govc: \`${code}\` is no diagnostic code.`);
    return;
  }
  const uri = vscode.Uri.from({ scheme: PAGES, path: `/${id}.md` });
  try {
    await vscode.workspace.openTextDocument(uri);
    await vscode.commands.executeCommand("markdown.showPreview", uri);
  } catch (error) {
    vscode.window.showErrorMessage(`govc: ${error instanceof Error ? error.message : error}`);
  }
}

/** @returns {string | undefined} */
function codeAtCursor() {
  const editor = vscode.window.activeTextEditor;
  if (!editor) return undefined;
  return vscode.languages
    .getDiagnostics(editor.document.uri)
    .filter((diagnostic) => diagnostic.range.contains(editor.selection.active))
    .map(({ code }) => String(typeof code === "object" ? code.value : code))
    .find((code) => CODE.test(code));
}

/**
 * The manual page of a code, in Markdown.
 * @param {string} code
 * @returns {Promise<string>}
 */
async function page(code) {
  const { program } = settings();
  return JSON.parse(await run(program, ["explain", code, "--json"])).page;
}

/**
 * What a program prints; no shell reads the arguments.
 * @param {string} program
 * @param {string[]} args
 * @returns {Promise<string>}
 */
function run(program, args) {
  return new Promise((resolve, reject) => {
    execFile(program, args, { timeout: 10_000 }, (error, stdout, stderr) => {
      if (!error) return resolve(stdout);
      const said = stderr.trim().split("\n")[0];
      if (said) error.message = said;
      reject(error);
    });
  });
}

module.exports = { activate, deactivate };
