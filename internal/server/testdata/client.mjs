// The official TypeScript client, as a human's that is asked by forms: it calls allow_domain, answers as it is told, and
// prints what came of it.
// Usage: node client.mjs MODULES ERA ANSWER CALLS SERVER [ARGUMENT...], with ANSWER as JSON; "defaults" fills defaults in.
import { pathToFileURL } from "node:url";

const [modules, era, answer, calls, command, ...args] = process.argv.slice(2);
const load = (name) => import(pathToFileURL(`${modules}/@modelcontextprotocol/client/dist/${name}.mjs`).href);
const { Client } = await load("index");
const { StdioClientTransport } = await load("stdio");

const client = new Client(
	{ name: "typescript", version: "1" },
	{ capabilities: { elicitation: { form: { applyDefaults: true } } }, versionNegotiation: { mode: era === "legacy" ? "legacy" : { pin: era } } },
);
let dialogs = 0;
let schema = null;
client.setRequestHandler("elicitation/create", async (request) => {
	dialogs++;
	schema = request.params.requestedSchema;
	return answer === "defaults" ? { action: "accept", content: {} } : JSON.parse(answer);
});
await client.connect(new StdioClientTransport({ command, args, env: process.env, stderr: "inherit" }));
let states = [];
for (let i = 0; i < Number(calls); i++) {
	try {
		const result = await client.callTool({ name: "allow_domain", arguments: { name: "box", domains: ["example.com"], reason: "to try" } });
		states.push(result.structuredContent.requests.map((r) => r.state).join());
	} catch (e) {
		states.push("error: " + e.message);
	}
}
console.log(JSON.stringify({ dialogs, states, schema }));
await client.close();
