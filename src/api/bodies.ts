import type { FastifyInstance } from "fastify";

/**
 * Takes JSON, and an empty body of whatever type: clients and proxies name a type where they send nothing. A call that needs a body says so when
 * it is checked.
 */
export function registerBodyParsing(app: FastifyInstance): void {
  const parseJson = app.getDefaultJsonParser("error", "error");
  app.removeContentTypeParser(["application/json", "text/plain"]);
  app.addContentTypeParser("application/json", { parseAs: "string" }, (request, body, done) => {
    if (body.length === 0) done(null);
    else void parseJson(request, body as string, done);
  });
  app.addContentTypeParser("*", { parseAs: "string" }, (_request, body, done) => {
    if (body.length === 0) done(null);
    else done(Object.assign(new Error("the body is not JSON"), { statusCode: 415 }));
  });
}
