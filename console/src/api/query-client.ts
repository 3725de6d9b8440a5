import { MutationCache, QueryCache, QueryClient } from "@tanstack/react-query";
import { ApiFailure } from "./client.ts";

/** Asks again who is signed in when an answer says that nobody is. */
function noticeSessionEnd(error: unknown): void {
  if (!(error instanceof ApiFailure) || error.status !== 401) return;
  queryClient.setQueryData(["session"], null);
}

export const queryClient: QueryClient = new QueryClient({
  queryCache: new QueryCache({ onError: noticeSessionEnd }),
  mutationCache: new MutationCache({ onError: noticeSessionEnd }),
  defaultOptions: {
    queries: {
      staleTime: 10_000,
      // A controller that is being restarted answers again within seconds; a refusal stays one.
      retry: (count, error) => count < 2 && error instanceof ApiFailure && (error.status === 0 || error.status >= 500),
      retryDelay: 1000,
    },
  },
});
