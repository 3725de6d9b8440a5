import { useQuery } from "@tanstack/react-query";
import { useNavigate, useParams } from "@tanstack/react-router";
import { Page } from "../ui/page.tsx";
import { Empty, Loading } from "../ui/states.tsx";

const PAGES = import.meta.glob<string>("../../../docs/runbooks/*.md", { query: "?runbook", import: "default" });

/** A page of docs/runbooks, as it was when the console was built. */
export function Runbook() {
  const { name } = useParams({ from: "/runbooks/$name" });
  const navigate = useNavigate();
  const load = PAGES[`../../../docs/runbooks/${name}.md`];
  const page = useQuery({ queryKey: ["runbook", name], queryFn: () => load!(), enabled: load !== undefined });
  return (
    <Page title={name} lead="From the runbooks: what it means, how to find the cause, what to do.">
      <section className="card body" aria-label="Runbook">
        {!load && <Empty title="There is no such runbook" />}
        {load && page.isPending && <Loading what="the runbook" />}
        {page.data !== undefined && (
          <div
            className="prose"
            onClick={(event) => {
              const link = (event.target as HTMLElement).closest("a");
              if (!link) return;
              event.preventDefault();
              void navigate({ to: new URL(link.href).pathname });
            }}
            dangerouslySetInnerHTML={{ __html: page.data.replace(/<h1[^]*?<\/h1>/, "") }}
          />
        )}
      </section>
    </Page>
  );
}
