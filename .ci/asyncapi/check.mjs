// Fails when the document on standard input is no valid AsyncAPI.
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";

const ERROR = 0;
const { diagnostics } = await new Parser().parse(readFileSync(0, "utf8"));
const errors = diagnostics.filter(({ severity }) => severity === ERROR);
for (const { message, path } of errors) console.error(`${path.join("/")}: ${message}`);
process.exitCode = errors.length === 0 ? 0 : 1;
