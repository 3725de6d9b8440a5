import { parseArgs } from "node:util";
import { pino } from "pino";
import { messageOf, UserError } from "../model/errors.ts";
import { readGatewayConfig } from "./config.ts";
import { Gateway } from "./gateway.ts";

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { config: { type: "string" } } });
  if (values.config === undefined) throw new UserError("InvalidInput", "usage: main.ts --config FILE");
  const config = await readGatewayConfig(values.config);
  const log = pino(
    { name: "gateway", level: config.logLevel },
    pino.destination(config.logFile === undefined ? 1 : { dest: config.logFile, append: true, mkdir: true }),
  );
  const gateway = new Gateway(config, log);
  let stopping = false;
  const stop = (signal: string): void => {
    // A second signal means it.
    if (stopping) process.exit(1);
    stopping = true;
    log.info({ signal }, "signal");
    gateway.retire().then(
      () => process.exit(0),
      (error) => {
        log.error({ problem: messageOf(error) }, "the stop failed");
        process.exit(1);
      },
    );
  };
  process.on("SIGTERM", stop);
  process.on("SIGINT", stop);
  await gateway.start();
}

try {
  await main();
} catch (error) {
  process.stderr.write(
    `gateway: ${error instanceof UserError ? error.message : ((error as Error).stack ?? messageOf(error))}\n`,
  );
  process.exit(error instanceof UserError ? 2 : 1);
}
