import { parseArgs } from "node:util";
import { pino } from "pino";
import { complain, LogFile } from "../logging/log-file.ts";
import { giveMemoryBackWhenIdle } from "../memory/idle-memory.ts";
import { messageOf, UserError } from "../model/errors.ts";
import { readGatewayConfig } from "./config.ts";
import { Gateway } from "./gateway.ts";
import { untilNeeded } from "./standby.ts";

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: { config: { type: "string" }, standby: { type: "boolean", default: false } },
  });
  if (values.config === undefined) throw new UserError("InvalidInput", "usage: main.ts --config FILE [--standby]");
  giveMemoryBackWhenIdle();
  if (values.standby) await untilNeeded();
  const configFile = values.config;
  const config = await readGatewayConfig(configFile);
  const logFile = new LogFile({
    path: config.logFile,
    onProblem: (sentence) => complain(`gateway: ${sentence}`),
  });
  const log = pino({ name: "gateway", level: config.logLevel }, logFile);
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
  const reload = async (): Promise<void> => {
    logFile.reopen();
    try {
      await gateway.reload(await readGatewayConfig(configFile));
    } catch (error) {
      log.error({ problem: messageOf(error) }, "the configuration before stays in use");
    }
  };
  process.on("SIGHUP", () => void reload());
  const ready = await gateway.start();
  // The ready file's content once more, for a parent: a full disk may have kept it from being written.
  process.send?.(ready);
}

try {
  await main();
} catch (error) {
  complain(`gateway: ${error instanceof UserError ? error.message : ((error as Error).stack ?? messageOf(error))}`);
  process.exit(error instanceof UserError ? 2 : 1);
}
