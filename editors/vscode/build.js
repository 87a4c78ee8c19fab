// The grammar and the licences live elsewhere in the repository, once; an extension can only hold
// what lies below its own folder.
"use strict";

const fs = require("node:fs");
const path = require("node:path");

const dist = path.join(__dirname, "dist");
fs.rmSync(dist, { recursive: true, force: true });
fs.mkdirSync(dist);
for (const file of ["../gov.tmLanguage.json", "../../LICENSE-MIT", "../../LICENSE-APACHE"]) {
  fs.copyFileSync(path.join(__dirname, file), path.join(dist, path.basename(file)));
}
