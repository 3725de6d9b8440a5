// An OCI image layout with one artefact of one layer: https://specs.opencontainers.org/image-spec/image-layout/
import { createHash } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

interface Blob {
  mediaType: string;
  content: Buffer;
}

export interface Artefact {
  tag: string;
  config: Blob;
  layer: Blob;
  annotations: Record<string, string>;
}

interface Descriptor {
  mediaType: string;
  digest: string;
  size: number;
}

/** @param directory is made, and must not have a layout yet */
export function writeLayout(directory: string, { tag, config, layer, annotations }: Artefact): void {
  const blobs = join(directory, "blobs/sha256");
  mkdirSync(blobs, { recursive: true });
  const write = ({ mediaType, content }: Blob): Descriptor => {
    const hex = createHash("sha256").update(content).digest("hex");
    writeFileSync(join(blobs, hex), content);
    return { mediaType, digest: `sha256:${hex}`, size: content.length };
  };
  const json = (mediaType: string, value: object): Blob => ({ mediaType, content: Buffer.from(JSON.stringify(value)) });
  const mediaType = "application/vnd.oci.image.manifest.v1+json";
  const manifest = write(
    json(mediaType, { schemaVersion: 2, mediaType, config: write(config), layers: [write(layer)], annotations }),
  );
  const index = {
    schemaVersion: 2,
    mediaType: "application/vnd.oci.image.index.v1+json",
    manifests: [{ ...manifest, annotations: { "org.opencontainers.image.ref.name": tag } }],
  };
  writeFileSync(join(directory, "index.json"), JSON.stringify(index));
  writeFileSync(join(directory, "oci-layout"), JSON.stringify({ imageLayoutVersion: "1.0.0" }));
}
