// The engine of Visual Studio Code colours the sample as the one of the Rust tests, which hold the
// grammar against lexer and parser.
"use strict";

const assert = require("node:assert");
const fs = require("node:fs");
const path = require("node:path");
const test = require("node:test");
const oniguruma = require("vscode-oniguruma");
const textmate = require("vscode-textmate");

const tests = path.join(__dirname, "../../../tests");
const grammar = path.join(__dirname, "../dist/gov.tmLanguage.json");

test("the sample is coloured as the snapshot says", async () => {
  const wasm = fs.readFileSync(require.resolve("vscode-oniguruma/release/onig.wasm"));
  await oniguruma.loadWASM(Uint8Array.from(wasm).buffer);
  const registry = new textmate.Registry({
    onigLib: Promise.resolve(oniguruma),
    loadGrammar: async () => textmate.parseRawGrammar(fs.readFileSync(grammar, "utf8"), grammar),
  });
  const loaded = await registry.loadGrammar("source.gov");
  assert(loaded);

  let text = "";
  let state = textmate.INITIAL;
  const source = fs.readFileSync(path.join(tests, "editors/sample.gov"), "utf8");
  for (const line of source.trimEnd().split("\n")) {
    const { tokens, ruleStack } = loaded.tokenizeLine(line, state);
    state = ruleStack;
    if (line.trim()) text += `${line}\n`;
    for (const { startIndex, endIndex, scopes } of tokens) {
      const token = line.slice(startIndex, endIndex);
      const names = scopes.slice(1).map((scope) => scope.replace(/\.gov$/, "")).join(" ");
      if (token.trim()) text += `  \`${token}\` ${names}\n`;
    }
  }
  const snapshot = fs.readFileSync(path.join(tests, "snapshots/editors-sample.snap"), "utf8");
  assert.strictEqual(text.trim(), snapshot.replace(/^---\n.*?\n---\n/s, "").trim());
});
