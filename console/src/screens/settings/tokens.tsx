import { useState } from "react";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { api, ApiFailure, dataOf } from "../../api/client.ts";
import { ActionDialog } from "../../ui/action.tsx";
import { Card } from "../../ui/page.tsx";
import { Empty, Waiting } from "../../ui/states.tsx";
import { Ago, Time } from "../../ui/time.tsx";
import { GrantCell, useGrant } from "./grant-fields.tsx";
import { SecretDialog } from "./secret-dialog.tsx";
import { ScrollTable } from "../../ui/scroll-table.tsx";

/** Who has a token, and when it was last used; new ones are shown once. */
export function Tokens() {
  const tokens = useQuery({ queryKey: ["tokens"], queryFn: ({ signal }) => dataOf(api.GET("/v1/tokens", { signal })) });
  const [isMaking, setMaking] = useState(false);
  const [made, setMade] = useState<{ name: string; token: string }>();
  const [revoked, setRevoked] = useState<string>();
  // The platform keeps no named tokens.
  if (tokens.error instanceof ApiFailure && tokens.error.status === 404) return null;
  return (
    <Card
      title="Tokens"
      flush
      aside={
        <button type="button" className="small" onClick={() => setMaking(true)}>
          Make a token …
        </button>
      }
    >
      {!tokens.data && <Waiting query={tokens} what="the tokens" />}
      {tokens.data?.items.length === 0 && (
        <Empty title="Nobody has a token but the owner">Give each person, and each machine, one of their own.</Empty>
      )}
      {tokens.data && tokens.data.items.length > 0 && (
        <ScrollTable
          label="Tokens"
          columns={["Name", "Role", "Expires", "Last use", { name: "Actions", hidden: true }]}
        >
          {tokens.data.items.map(({ name, role, tenants, expiresAt, lastUsedAt }) => (
            <tr key={name}>
              <td>{name}</td>
              <GrantCell role={role} tenants={tenants} />
              <td className="time">{expiresAt === undefined ? "never" : <Time at={expiresAt} />}</td>
              <td className="time">{lastUsedAt === undefined ? "never" : <Ago at={lastUsedAt} />}</td>
              <td>
                <button type="button" className="small" onClick={() => setRevoked(name)}>
                  Revoke …<span className="visually-hidden"> {name}</span>
                </button>
              </td>
            </tr>
          ))}
        </ScrollTable>
      )}
      {isMaking && <MakeDialog close={() => setMaking(false)} onMade={setMade} />}
      {made && (
        <SecretDialog title={`The token of ${made.name}`} secret={made.token} close={() => setMade(undefined)}>
          <p>Copy it now: it is kept nowhere, and nothing shows it again.</p>
        </SecretDialog>
      )}
      {revoked !== undefined && (
        <ActionDialog
          close={() => setRevoked(undefined)}
          action={{
            title: `Revoke ${revoked}`,
            children: <p>Its bearer is refused from then on, and sessions that began with it end.</p>,
            command: `synapse-shards token revoke ${revoked}`,
            verb: "Revoke",
            isDangerous: true,
            done: `The token ${revoked} is revoked.`,
            act: () => dataOf(api.DELETE("/v1/tokens/{name}", { params: { path: { name: revoked } } })),
          }}
        />
      )}
    </Card>
  );
}

const DURATIONS = [
  { days: 30, name: "30 days" },
  { days: 90, name: "90 days" },
  { days: 365, name: "a year" },
  { days: 0, name: "until it is revoked" },
];

function MakeDialog({ close, onMade }: { close: () => void; onMade: (made: { name: string; token: string }) => void }) {
  const client = useQueryClient();
  const grant = useGrant();
  const [days, setDays] = useState(90);
  const { name } = grant.body;
  const expiry = days === 0 ? {} : { expiresInDays: days };
  const expires = days === 0 ? "" : ` --expires ${days}d`;
  return (
    <ActionDialog
      close={close}
      action={{
        title: "Make a token",
        children: (
          <>
            {grant.fields}
            <label>
              <span>Good for</span>
              <select value={days} onChange={({ target }) => setDays(Number(target.value))}>
                {DURATIONS.map((one) => (
                  <option key={one.days} value={one.days}>
                    {one.name}
                  </option>
                ))}
              </select>
            </label>
          </>
        ),
        command: `synapse-shards token create ${grant.words}${expires}`,
        verb: "Make",
        done: `The token ${name} is made.`,
        act: async () => {
          onMade(await dataOf(api.POST("/v1/tokens", { body: { ...grant.body, ...expiry } })));
          await client.invalidateQueries({ queryKey: ["tokens"] });
        },
      }}
    />
  );
}
