/** Of each command, what one would type, without the program's name: for its help and for docs/cli.md. */
const TABLE = `
up --config cluster.yaml
up --demo

tenant create clinic-a
tenant create clinic-a --domain clinic.example --admin ada --wait
tenant create clinic-a --mas http://127.0.0.1:8090 --wait
tenant create clinic-b --from-template clinic-a --label plan=small --quota users=50 --quota mediaBytes=10G

tenant update clinic-a --config clinic-a.yaml --wait
tenant update clinic-a --release fleet
tenant update -l plan=trial --hibernation 900 --yes

tenant delete clinic-a
tenant delete clinic-a --purge --yes

tenant list -l plan=small --sort-by createdAt --desc
tenant list -o jsonpath='$[?@.phase == "Failed"].name'
tenant list --watch

tenant get clinic-a -o yaml
tenant get clinic-a --watch

tenant describe clinic-a

tenant check clinic-a
tenant check -l region=eu --wait

tenant dns clinic-a

tenant move clinic-a
tenant move clinic-a --to 1.163.2-1 --pin 6h

tenant move-database clinic-a --to second

tenant rename clinic-a clinic-b

tenant backup clinic-a
tenant backup -l plan=large --yes

tenant backups
tenant backups clinic-a

tenant restore clinic-a
tenant restore clinic-a --at 2026-01-31T08:00:00Z
tenant restore clinic-a --as clinic-a-copy

tenant inspect clinic-a --at 2026-01-31T08:00:00Z
tenant inspect clinic-a --login

tenant inspections

tenant import clinic-a --homeserver-yaml /etc/matrix-synapse/homeserver.yaml --rehearse
tenant import clinic-a --archive /srv/clinic-a.tar

tenant export clinic-a --to /srv/clinic-a.tar

tenant quarantine clinic-a
tenant quarantine clinic-a --lift

tenant sleep clinic-a --wait

tenant wake clinic-a --wait

tenant suspend clinic-a
tenant suspend -l paid=no --yes

tenant resume clinic-a --wait

tenant undelete clinic-a --wait

tenant purge clinic-a

tenant purges -o json

tenant usage
tenant usage --month 2026-01 -o csv

tenant quotas clinic-a

tenant logs clinic-a --since 15m --level warning
tenant logs clinic-a -f -o json | jq .message

tenant register-user clinic-a --user ada --admin
tenant register-user clinic-a --user ada --password-file ada.password

tenant users list clinic-a --search ada

tenant users reset-password clinic-a ada
tenant users reset-password clinic-a ada --password-file ada.password --keep-sessions

tenant users deactivate clinic-a eve --erase

tenant users make-admin clinic-a ada
tenant users make-admin clinic-a ada --revoke

tenant appservice list clinic-a

tenant appservice add clinic-a --registration registration.yaml --wait
tenant appservice add clinic-a --id helpdesk --url https://bot.example --sender helpdesk --users '@ticket_.*:clinic-a\\.example'

tenant appservice remove clinic-a helpdesk

tenant appservice ping clinic-a helpdesk

tenant host list clinic-a

tenant host add clinic-a chat.clinic-a.example --wait

tenant host remove clinic-a chat.clinic-a.example

tenant authentication show clinic-a

tenant authentication set clinic-a http://127.0.0.1:8090 --wait

tenant admin-access show clinic-a

tenant admin-access open clinic-a --network 10.20.0.0/16 192.0.2.7

tenant admin-access close clinic-a

tenant admin-access sign-in clinic-a ada

tenant edit clinic-a
EDITOR=nano tenant edit clinic-a --wait

apply -f tenants.yaml --dry-run
apply -f tenants.yaml --prune -l region=eu

diff -f tenants.yaml

plan list

notifications list

notifications test

database-server list

shard list --sort-by load --desc
shard list -o template='{{#.}}{{name}} has {{tenants}} of {{capacity}}\\n{{/.}}'

shard get 1.163.2-0

shard describe 1.163.2-0

shard drain 1.163.2-0 --wait

shard logs 1.163.2-0 --since 15m --level warning
shard logs 1.163.2-0 -f -o json | jq .message

backup verify
backup verify clinic-a

backup restore-all --identity backups.key

backup moments

certificates list

certificates renew matrix.clinic.example

fleet status

fleet set --release 1.164.0 --canary clinic-test --wave-size 20 --wait
fleet set --window '0 2 * * 6;4h;Europe/Berlin' --on-failure RollBack

fleet pause

fleet resume

fleet rollback --wait

status
status -o json

events --since 1h --type Warning
events --for tenant/clinic-a -f

history --range week --shard 1.163.2-0 -o json

explain MaxShardsReached
explain -o json

token create ada --role operator > ada.token
token create ci --role operator --expires 90d
token create acme-it --role tenant-admin --tenants customer=acme

token list

token revoke ci

account create ada --role admin
account create acme-it --role tenant-admin --tenants customer=acme

account list

account reset ada

account remove ada

audit list --since 1d --by ada
audit list --for clinic-a -o wide

audit export --since 2026-01-01 > audit.jsonl

audit verify

context add berlin --server https://shards.example --token-command 'pass show shards/berlin'
context add here --data /var/lib/synapse-shards

context use berlin

context list

context remove berlin

completion bash > ~/.local/share/bash-completion/completions/synapse-shards

version
`;

/** @param path of a command, such as `tenant move` @returns as they are typed */
export function examplesOf(path: string): string[] {
  return TABLE.split("\n")
    .filter((line) => `${withoutSetting(line)} `.startsWith(`${path} `))
    .map((line) => line.replace(withoutSetting(line), `synapse-shards ${withoutSetting(line)}`));
}

/** Without a variable of the environment before it. */
function withoutSetting(line: string): string {
  return line.replace(/^[A-Z]+=\S+ /, "");
}

export function examplesHelp(path: string): string {
  const examples = examplesOf(path);
  if (examples.length === 0) return "";
  return `\nExample${examples.length > 1 ? "s" : ""}:\n${examples.map((example) => `  ${example}`).join("\n")}`;
}
