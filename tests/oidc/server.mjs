// A real OpenID provider (npm `oidc-provider`) on a free port of this machine. The browser's cookie `who`
// says who logs in; nobody is asked for a password. Its arguments are the id and the secret of the one client
// and where that has browsers sent; its first line is the issuer.
import { createServer } from "node:http";
import Provider from "oidc-provider";

const [clientId, clientSecret, redirectUri] = process.argv.slice(2);
const server = createServer((request, response) => handle(request, response));
server.listen(0, "127.0.0.1", () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  start(issuer);
  console.log(issuer);
});
// Nobody reads more than that line, and the provider has more to say.
process.stdout.on("error", () => {});
// Whoever started it is gone.
process.stdin.on("end", () => process.exit(0)).resume();

let handle = (_, response) => response.writeHead(503).end();

function start(issuer) {
  const provider = new Provider(issuer, {
    clients: [{ client_id: clientId, client_secret: clientSecret, redirect_uris: [redirectUri] }],
    pkce: { required: () => true },
    claims: { openid: ["sub"], email: ["email", "email_verified"], profile: ["name", "preferred_username"] },
    features: { devInteractions: { enabled: false } },
    interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
    cookies: { keys: ["a key of a test"] },
    findAccount: (_, id) => ({
      accountId: id,
      claims: () => ({
        sub: id,
        email: `${id}@example.com`,
        email_verified: id !== "unverified",
        name: `${id} of the provider`,
        preferred_username: id,
      }),
    }),
  });
  const callback = provider.callback();
  handle = (request, response) => {
    if (request.url.startsWith("/interaction/")) {
      interact(provider, request, response).catch((error) => response.writeHead(500).end(String(error)));
    } else {
      callback(request, response);
    }
  };
}

async function interact(provider, request, response) {
  const { prompt, params, session, grantId } = await provider.interactionDetails(request, response);
  const who = /(?:^|; )who=([a-z]+)/.exec(request.headers.cookie ?? "")?.[1];
  if (who === undefined) {
    const result = { error: "access_denied", error_description: "nobody is here" };
    await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false });
    return;
  }
  if (prompt.name === "login") {
    const result = { login: { accountId: who } };
    await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false });
    return;
  }
  const grant = grantId
    ? await provider.Grant.find(grantId)
    : new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
  grant.addOIDCScope(params.scope);
  const result = { consent: { grantId: await grant.save() } };
  await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: true });
}
