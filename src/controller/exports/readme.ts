import { ARCHIVED } from "../../model/archive.ts";

export interface ReadmeFacts {
  serverName: string;
  release: string;
  takenAt: string;
  /** The version of PostgreSQL whose pg_dump made the dump. */
  postgresMajor: number;
  notes: readonly string[];
}

/** What whoever gets the archive does with it. */
export function readmeOf({ serverName, release, takenAt, postgresMajor, notes }: ReadmeFacts): string {
  const remarks = notes.length === 0 ? "" : `\n## About this homeserver\n\n${notes.map((n) => `- ${n}\n`).join("")}`;
  return `# The Matrix homeserver ${serverName}

Everything that a plain Synapse needs to go on as ${serverName}, as of ${takenAt}: users, rooms, messages, media and keys.
Keep it as secret as the homeserver itself.

| file | what it is |
| --- | --- |
| \`${ARCHIVED.config}\`, \`${ARCHIVED.logConfig}\` | the configuration, and the files beside it that it names |
| \`${ARCHIVED.signingKey}\` | the key by which other servers know ${serverName} |
| \`${ARCHIVED.database}\` | the database, for \`pg_restore\` of PostgreSQL ${postgresMajor} or newer |
| \`${ARCHIVED.media}/\` | uploads, and media of other servers; thumbnails are made again |
| \`${ARCHIVED.checksums}\` | hashes of all files: \`sha256sum --check ${ARCHIVED.checksums}\` |
| \`${ARCHIVED.manifest}\` | what there was: release, counts |

**Two homeservers of one name break both.** Start this one only when the other one is stopped for good.

## Steps

Run them in this directory.

1. Install Synapse ${release} or newer: \`pip install "matrix-synapse[postgres]==${release}"\`, or your distribution's package.
2. Make a database. Synapse insists on the locale C and on UTF8:

   \`\`\`sh
   createuser --pwprompt synapse
   createdb --owner=synapse --encoding=UTF8 --locale=C --template=template0 synapse
   pg_restore --no-owner --no-privileges --exit-on-error --host=localhost --username=synapse --dbname=synapse ${ARCHIVED.database}
   \`\`\`

   A server before PostgreSQL 17 does not know one of the settings; the last line is then:

   \`\`\`sh
   pg_restore --no-owner --no-privileges --file=- ${ARCHIVED.database} | sed '/^SET transaction_timeout = 0;$/d' \\
     | psql --quiet --set=ON_ERROR_STOP=1 --host=localhost --username=synapse --dbname=synapse
   \`\`\`

3. Put the password into \`${ARCHIVED.config}\`.
4. If ${serverName} was in use after ${takenAt}, an encryption key could be given out twice. Prevent that:

   \`\`\`sh
   psql --host=localhost --username=synapse --dbname=synapse \\
     --command='DELETE FROM e2e_one_time_keys_json; UPDATE e2e_fallback_keys_json SET used = true'
   \`\`\`

5. Start it: \`python -m synapse.app.homeserver --config-path ${ARCHIVED.config}\`
6. Have your reverse proxy send \`/_matrix\` and \`/_synapse/client\` to port 8008, and point DNS to it. Users stay logged in.
${remarks}`;
}
