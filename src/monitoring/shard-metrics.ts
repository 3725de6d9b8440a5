/** What `GET /metrics` of a shard has (multi_synapse/metrics.py, control.py); a test compares it with a shard's answer. */
export interface ShardMetric {
  name: string;
  type: "counter" | "gauge" | "histogram";
  labels: string[];
  help: string;
}

export const SHARD_METRICS: ShardMetric[] = [
  { name: "multi_synapse_tenants", type: "gauge", labels: ["phase"], help: "Tenants on this shard by phase" },
  {
    name: "multi_synapse_tenant_cpu_seconds_total",
    type: "counter",
    labels: ["tenant"],
    help: "Processor time that a tenant took since its start here: requests, background processes, and their threads",
  },
  {
    name: "multi_synapse_tenant_response_bytes_total",
    type: "counter",
    labels: ["tenant"],
    help: "Bytes of a tenant's answers since its start here",
  },
  {
    name: "multi_synapse_tenant_database_rows_total",
    type: "counter",
    labels: ["tenant"],
    help: "Rows that a tenant read and wrote since its start here",
  },
  {
    name: "multi_synapse_tenant_image_seconds_total",
    type: "counter",
    labels: ["tenant"],
    help: "Time that workers spent with a tenant's images since its start here",
  },
  {
    name: "multi_synapse_tenant_held_back_seconds_total",
    type: "counter",
    labels: ["tenant"],
    help: "Time that a throttled tenant's database jobs had to wait for its neighbours, since its start here",
  },
  {
    name: "multi_synapse_tenant_cache_entries",
    type: "gauge",
    labels: ["tenant"],
    help: "Entries of a tenant's caches",
  },
  { name: "multi_synapse_database_connections", type: "gauge", labels: [], help: "Open database connections" },
  {
    name: "synapse_http_server_response_count_total",
    type: "counter",
    labels: ["method", "servlet", "tag", "server_name"],
    help: "Requests that a tenant answered, by what was asked",
  },
  {
    name: "synapse_http_server_in_flight_requests_count",
    type: "gauge",
    labels: ["method", "servlet", "server_name"],
    help: "Requests of a tenant that are being worked on",
  },
  {
    name: "synapse_storage_events_persisted_events_total",
    type: "counter",
    labels: ["server_name"],
    help: "Events that a tenant wrote",
  },
  {
    name: "synapse_federation_client_sent_transactions_total",
    type: "counter",
    labels: ["server_name"],
    help: "Transactions that a tenant sent to other homeservers",
  },
  {
    name: "synapse_federation_server_received_pdus_total",
    type: "counter",
    labels: ["server_name"],
    help: "Events that a tenant received from other homeservers",
  },
  {
    name: "synapse_background_update_status",
    type: "gauge",
    labels: ["database_name", "server_name"],
    help: "A tenant's background updates of its database: 3 complete, 2 they run, 1 not started, 0 disabled, -1 aborted",
  },
  { name: "process_cpu_seconds_total", type: "counter", labels: [], help: "Processor time of the shard's process" },
  { name: "process_resident_memory_bytes", type: "gauge", labels: [], help: "Resident memory of the shard's process" },
  { name: "process_open_fds", type: "gauge", labels: [], help: "Open file descriptors of the shard's process" },
  {
    name: "python_gc_time",
    type: "histogram",
    labels: ["gen"],
    help: "Time of garbage collections in seconds, by generation",
  },
];
