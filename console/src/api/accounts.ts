import { startAuthentication, startRegistration } from "@simplewebauthn/browser";
import type {
  PublicKeyCredentialCreationOptionsJSON,
  PublicKeyCredentialRequestOptionsJSON,
} from "@simplewebauthn/browser";
import { api, dataOf } from "./client.ts";
import type { Person } from "./session.ts";

export interface Enrolment extends Person {
  flow: string;
  passkey: { challenge: string };
  totp: { secret: string; uri: string };
}

export async function enterWithPasskey(): Promise<Person> {
  const { flow, options } = await dataOf(api.POST("/v1/session/passkey/options"));
  const optionsJSON = options as unknown as PublicKeyCredentialRequestOptionsJSON;
  const response = await inWords(startAuthentication({ optionsJSON }));
  return dataOf(api.POST("/v1/session/passkey", { body: { flow, response: response as never } }));
}

export const enterWithPassword = (body: { name: string; password: string; code: string }): Promise<Person> =>
  dataOf(api.POST("/v1/session/password", { body }));

export const beginEnrolment = (secret: string): Promise<Enrolment> =>
  dataOf(api.POST("/v1/enrolment", { body: { secret } }));

export async function enrolPasskey(secret: string, { flow, passkey }: Enrolment): Promise<Person> {
  const optionsJSON = passkey as unknown as PublicKeyCredentialCreationOptionsJSON;
  const response = await inWords(startRegistration({ optionsJSON }));
  return dataOf(api.POST("/v1/enrolment/passkey", { body: { secret, flow, response: response as never } }));
}

export const enrolPassword = (body: {
  secret: string;
  flow: string;
  password: string;
  code: string;
}): Promise<Person> => dataOf(api.POST("/v1/enrolment/password", { body }));

/** The browser's own words are for programmers. */
async function inWords<T>(asked: Promise<T>): Promise<T> {
  try {
    return await asked;
  } catch (error) {
    const { name } = error as Error;
    throw new Error(
      name === "NotAllowedError"
        ? "the browser asked for no passkey, or it was refused or took too long"
        : "this browser, or this address, cannot use passkeys",
      { cause: error },
    );
  }
}
