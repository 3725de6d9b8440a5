import { Link } from "@tanstack/react-router";

/** `Tenant/clinic-a` as a person reads it, and gets there. */
export function ObjectLink({ object }: { object: string }) {
  const [kind = "", name = ""] = object.split("/");
  if (kind === "Fleet") return <span>the fleet</span>;
  return (
    <Link to={kind === "Shard" ? "/shards/$name" : "/tenants/$name"} params={{ name }}>
      <span className="muted">{kind.toLowerCase()}</span> {name}
    </Link>
  );
}
