/** When an alert fires in a made-up hour, and when it does not; checked by Prometheus' own rule engine. */
export interface AlertCase {
  alert: string;
  /** What the case is about, where an alert has several. */
  when?: string;
  /** Series without prefix of namespace and cluster, and their values, one a minute, in promtool's notation. */
  series: Record<string, string>;
  /** Minutes at which it does not fire: too early, not bad enough, over. */
  quiet: number[];
  fires?: { at: number[]; labels?: Record<string, string>; severity: string; summary: string; description: string };
}

const C = "synapse_shards_controller_";
const G = "synapse_shards_gateway_";

export const ALERT_CASES: AlertCase[] = [
  {
    alert: "SynapseShardsControllerDown",
    series: {
      'up{component="controller",instance="c1"}': "1x9 0x20 1x30",
      'up{component="controller",instance="c2"}': "0x60",
      'up{component="gateway",instance="g1"}': "1x60",
    },
    quiet: [5, 13, 35],
    fires: {
      at: [16, 28],
      labels: { component: "controller" },
      severity: "critical",
      summary: "No controller can be reached",
      description:
        "Prometheus has not reached any controller of shards/synapse-shards for 5 minutes. Homeservers are served as before, but nothing is placed, moved, upgraded or repaired.",
    },
  },
  {
    alert: "SynapseShardsControllerDown",
    when: "Prometheus no longer finds any target",
    series: { 'up{component="controller",instance="c1"}': "1x9 _x20 1x30" },
    quiet: [9, 35],
    fires: {
      at: [25],
      labels: { component: "controller" },
      severity: "critical",
      summary: "No controller can be reached",
      description:
        "Prometheus has not reached any controller of shards/synapse-shards for 5 minutes. Homeservers are served as before, but nothing is placed, moved, upgraded or repaired.",
    },
  },
  {
    alert: "SynapseShardsNoLeader",
    series: { [`${C}leader{instance="c1"}`]: "1x9 0x9 0x30", [`${C}leader{instance="c2"}`]: "0x19 1x30" },
    quiet: [5, 11, 25],
    fires: {
      at: [13, 19],
      severity: "critical",
      summary: "Controllers are up, but no controller leads",
      description:
        "No controller of shards/synapse-shards has held the Lease for 2 minutes. Homeservers are served as before, but nothing is placed, moved, upgraded or repaired.",
    },
  },
  {
    alert: "SynapseShardsControllerErrors",
    series: {
      [`${C}reconcile_errors_total{kind="Tenant"}`]: "0x9 1+2x15 31x60",
      [`${C}reconcile_errors_total{kind="Shard"}`]: "0x30 1x30",
    },
    quiet: [5, 10, 50],
    fires: {
      at: [24],
      labels: { kind: "Tenant" },
      severity: "warning",
      summary: "The controller keeps meeting unexpected errors",
      description:
        "In 15 minutes the controller of shards/synapse-shards met 29 unexpected errors while it worked on a Tenant. It retries automatically; its log says what is wrong.",
    },
  },
  {
    alert: "SynapseShardsFull",
    series: {
      [`${C}saturated{image_tag="1.163.2"}`]: "0x9 1x20 0x30",
      [`${C}saturated{image_tag="1.157.2"}`]: "0x60",
    },
    quiet: [9, 13, 35],
    fires: {
      at: [16, 29],
      labels: { image_tag: "1.163.2" },
      severity: "warning",
      summary: "All shards of image tag 1.163.2 are full",
      description:
        "Every shard of image tag 1.163.2 in shards/synapse-shards holds maxTenantsPerShard tenants, and maxShardsPerSynapseImageTag is reached. Tenants that run are served; new ones stay Pending until there is room.",
    },
  },
  {
    alert: "SynapseShardsNearlyFull",
    series: {
      [`${C}shard_tenants{shard="1.163.2-0",image_tag="1.163.2"}`]: "10x9 25x50",
      [`${C}shard_tenants{shard="1.163.2-1",image_tag="1.163.2"}`]: "10x9 20x30 25x20",
      [`${C}capacity{image_tag="1.163.2"}`]: "50x60",
      [`${C}saturated{image_tag="1.163.2"}`]: "0x39 1x20",
      [`${C}shard_tenants{shard="1.157.2-0",image_tag="1.157.2"}`]: "44x60",
      [`${C}capacity{image_tag="1.157.2"}`]: "50x60",
    },
    quiet: [9, 20, 45],
    fires: {
      at: [27, 38],
      labels: { image_tag: "1.163.2" },
      severity: "info",
      summary: "Shards of image tag 1.163.2 are nearly full",
      description:
        "90% of the places for tenants of image tag 1.163.2 in shards/synapse-shards are taken. Without more, new tenants will soon stay Pending.",
    },
  },
  {
    alert: "SynapseShardsPlacesInUse",
    series: {
      [`${C}tenants{image_tag="1.163.2",phase="Pending",reason="MaxShardsReached",hosting="shard"}`]: "0x9 3x20 0x30",
      [`${C}tenants{image_tag="1.163.2",phase="Pending",reason="Waking",hosting="shard"}`]: "4x60",
      [`${C}tenants{image_tag="1.157.2",phase="Running",reason="",hosting="shard"}`]: "20x60",
    },
    quiet: [5, 13, 40],
    fires: {
      at: [16, 28],
      labels: { image_tag: "1.163.2" },
      severity: "warning",
      summary: "All places of image tag 1.163.2 are in use",
      description:
        "3 tenants of image tag 1.163.2 in shards/synapse-shards wait for a place, and no tenant that has one can sleep. Their users cannot reach them.",
    },
  },
  {
    alert: "SynapseShardsWakesSlow",
    series: {
      [`${C}wake_seconds_bucket{le="3"}`]: "0+10x20 200+5x15 275+10x25",
      [`${C}wake_seconds_bucket{le="10"}`]: "0+10x60",
      [`${C}wake_seconds_bucket{le="+Inf"}`]: "0+10x60",
      [`${C}wake_seconds_count{instance="c1"}`]: "0+10x60",
    },
    quiet: [20, 60],
    fires: {
      at: [36],
      severity: "warning",
      summary: "Tenants wake slowly",
      description:
        "In 15 minutes one wake in ten took longer than 8.6 s in shards/synapse-shards. The first users of homeservers that slept wait for as long.",
    },
  },
  {
    alert: "SynapseShardsWakesSlow",
    when: "too few are woken to tell",
    series: {
      [`${C}wake_seconds_bucket{le="3"}`]: "0x60",
      [`${C}wake_seconds_bucket{le="10"}`]: "0x9 3x10 3+10x15 153x24",
      [`${C}wake_seconds_bucket{le="+Inf"}`]: "0x9 3x10 3+10x15 153x24",
      [`${C}wake_seconds_count{instance="c1"}`]: "0x9 3x10 3+10x15 153x24",
    },
    quiet: [15, 19, 58],
    fires: {
      at: [30],
      severity: "warning",
      summary: "Tenants wake slowly",
      description:
        "In 15 minutes one wake in ten took longer than 9.3 s in shards/synapse-shards. The first users of homeservers that slept wait for as long.",
    },
  },
  {
    alert: "SynapseShardsWakesFailing",
    series: {
      [`${C}wake_failures_total{reason="DatabaseUnreachable"}`]: "0x9 0+2x10 20x40",
      [`${C}wake_failures_total{reason="StartFailed"}`]: "0+0.1x60",
    },
    quiet: [9, 45],
    fires: {
      at: [20],
      labels: { reason: "DatabaseUnreachable" },
      severity: "critical",
      summary: "Tenants cannot be woken (DatabaseUnreachable)",
      description:
        "In 15 minutes 20 starts of tenants that were to be woken failed in shards/synapse-shards: DatabaseUnreachable. Their users cannot reach them.",
    },
  },
  {
    alert: "SynapseShardsSleepThrashing",
    series: {
      [`${C}sleeps_total{reason="PlacesNeeded"}`]: "0x9 0+4x15 60x95",
      [`${C}sleeps_total{reason="Idle"}`]: "0+9x120",
      [`${C}capacity{image_tag="1.163.2"}`]: "40x120",
    },
    quiet: [15, 110],
    fires: {
      at: [40],
      severity: "warning",
      summary: "Tenants take places from each other",
      description:
        "In an hour 60 tenants of shards/synapse-shards were put to sleep before their time, because others needed their places. Each has to be woken again when it is used.",
    },
  },
  {
    alert: "SynapseShardsTenantFailed",
    series: {
      // The reason may change while it stays failed; the clock goes on.
      [`${C}tenant_not_ready_since_timestamp_seconds{tenant="a",phase="Failed",reason="InvalidConfig"}`]:
        "_x9 600x10 _x40",
      [`${C}tenant_not_ready_since_timestamp_seconds{tenant="b",phase="Moving",reason=""}`]: "0x60",
    },
    quiet: [9, 14, 27],
    fires: {
      at: [18],
      labels: { tenant: "a", reason: "InvalidConfig" },
      severity: "critical",
      summary: "Tenant a cannot be started (InvalidConfig)",
      description:
        "The homeserver of tenant a in shards/synapse-shards has not been able to start for 8m 0s: InvalidConfig. Its users cannot reach it. It is tried again every minute.",
    },
  },
  {
    alert: "SynapseShardsTenantPendingTooLong",
    series: {
      [`${C}tenant_not_ready_since_timestamp_seconds{tenant="a",phase="Pending",reason="MaxShardsReached"}`]:
        "_x4 300x20 _x40",
      [`${C}tenant_not_ready_since_timestamp_seconds{tenant="b",phase="Starting",reason=""}`]: "_x4 300x7 _x40",
      [`${C}tenant_not_ready_since_timestamp_seconds{tenant="c",phase="Failed",reason="InvalidConfig"}`]: "0x60",
    },
    quiet: [5, 14, 32],
    fires: {
      at: [20],
      labels: { tenant: "a", phase: "Pending", reason: "MaxShardsReached" },
      severity: "warning",
      summary: "Tenant a is still Pending",
      description:
        "Tenant a in shards/synapse-shards has been waiting to run for 15m 0s: Pending, MaxShardsReached. Its users cannot reach it.",
    },
  },
  {
    alert: "SynapseShardsTenantSecretUnreadable",
    series: { [`${C}tenant_secret_unreadable{tenant="a",reason="SecretMissing"}`]: "_x9 1x10 _x40" },
    quiet: [5, 10, 27],
    fires: {
      at: [13, 19],
      labels: { tenant: "a", reason: "SecretMissing" },
      severity: "warning",
      summary: "The Secrets of tenant a cannot be read",
      description:
        "The controller of shards/synapse-shards cannot read the configuration or keys of tenant a (SecretMissing). What runs of it goes on unchanged, but no change of it takes effect.",
    },
  },
  {
    alert: "SynapseShardsTenantQuarantined",
    series: { [`${C}tenant_quarantined{instance="c1",tenant="clinic-a"}`]: "_x9 1x20 _x30" },
    quiet: [5, 9, 45],
    fires: {
      at: [15, 28],
      labels: { tenant: "clinic-a" },
      severity: "warning",
      summary: "Tenant clinic-a is quarantined",
      description:
        "In shards/synapse-shards, tenant clinic-a runs on a shard of its own, because its code held up a shard more than once, or because an operator asked for it. It stays there until the quarantine is lifted.",
    },
  },
  {
    alert: "SynapseShardsMoveFailing",
    when: "a tenant is rolled back again and again",
    series: {
      [`${C}tenant_move_failures{tenant="a"}`]: "_x9 1x9 2x10 _x30",
      [`${C}tenant_move_failures{tenant="b"}`]: "1x60",
      [`${C}moves_total{reason="Upgrade",outcome="RolledBack"}`]: "0x9 1x9 2x60",
      [`${C}moves_total{reason="Upgrade",outcome="Succeeded"}`]: "0+1x60",
    },
    quiet: [15, 37],
    fires: {
      at: [25],
      labels: { tenant: "a" },
      severity: "warning",
      summary: "Moves of tenant a fail",
      description:
        "In shards/synapse-shards, 2 moves of tenant a in a row were rolled back. The tenants run on where they were; upgrades and consolidation of them do not come about.",
    },
  },
  {
    alert: "SynapseShardsMoveFailing",
    when: "moves of many tenants fail",
    series: {
      [`${C}moves_total{reason="Upgrade",outcome="Refused"}`]: "0x9 3x120",
      [`${C}moves_total{reason="Drain",outcome="RolledBack"}`]: "0x14 2x120",
      [`${C}moves_total{reason="Upgrade",outcome="Succeeded"}`]: "0+1x130",
    },
    quiet: [12, 90],
    fires: {
      at: [20],
      severity: "warning",
      summary: "Moves fail",
      description:
        "In shards/synapse-shards, 5 moves were rolled back or refused in an hour. The tenants run on where they were; upgrades and consolidation of them do not come about.",
    },
  },
  {
    alert: "SynapseShardsMoveStuck",
    series: {
      [`${C}tenant_not_ready_since_timestamp_seconds{tenant="a",phase="Moving",reason=""}`]: "_x4 300x25 _x30",
      [`${C}tenant_not_ready_since_timestamp_seconds{tenant="b",phase="Pending",reason=""}`]: "0x60",
    },
    quiet: [10, 19, 37],
    fires: {
      at: [25],
      labels: { tenant: "a" },
      severity: "warning",
      summary: "The move of tenant a does not end",
      description:
        "Tenant a in shards/synapse-shards has been moving for 20m 0s; a move takes seconds once its target shard is ready.",
    },
  },
  {
    alert: "SynapseShardsRolloutHalted",
    series: {
      [`${C}rollout_phase{phase="Halted"}`]: "0x9 1x10 0x30",
      [`${C}rollout_phase{phase="Progressing"}`]: "1x9 0x10 1x30",
      [`${C}rollout_phase{phase="RolledBack"}`]: "0x60",
    },
    quiet: [9, 10, 25],
    fires: {
      at: [15],
      labels: { phase: "Halted" },
      severity: "warning",
      summary: "The rollout of a new image tag is Halted",
      description:
        "Too many tenants failed under the new image tag in shards/synapse-shards. Nothing more is moved until the fleet's spec changes.",
    },
  },
  {
    alert: "SynapseShardsShardCrashLooping",
    when: "its process comes up and ends again",
    series: {
      [`${C}shard_restarts_total{shard="1.163.2-0"}`]: "0x9 1x3 2x3 3x60",
      [`${C}shard_restarts_total{shard="1.163.2-1"}`]: "0x9 1x60",
      // Another leader starts to count again.
      [`${C}shard_restarts_total{shard="1.163.2-2",instance="c1"}`]: "7x9 _x60",
      [`${C}shard_restarts_total{shard="1.163.2-2",instance="c2"}`]: "_x9 0x60",
    },
    quiet: [9, 14, 40],
    fires: {
      at: [21],
      labels: { shard: "1.163.2-0" },
      severity: "critical",
      summary: "Shard 1.163.2-0 crashes again and again",
      description:
        "The process of shard 1.163.2-0 in shards/synapse-shards keeps ending without being asked to. None of its tenants is served meanwhile.",
    },
  },
  {
    alert: "SynapseShardsShardCrashLooping",
    when: "its process never comes up",
    series: {
      [`${C}shard_not_ready_since_timestamp_seconds{shard="1.163.2-0",image_tag="1.163.2",phase="Failed",reason="Crashed"}`]:
        "_x9 600x10 _x30",
      [`${C}shard_not_ready_since_timestamp_seconds{shard="1.163.2-1",image_tag="1.163.2",phase="Failed",reason="ImageUnavailable"}`]:
        "600x60",
    },
    quiet: [9, 27],
    fires: {
      at: [15],
      labels: { shard: "1.163.2-0" },
      severity: "critical",
      summary: "Shard 1.163.2-0 crashes again and again",
      description:
        "The process of shard 1.163.2-0 in shards/synapse-shards keeps ending without being asked to. None of its tenants is served meanwhile.",
    },
  },
  {
    alert: "SynapseShardsShardDown",
    series: {
      [`${C}shard_not_ready_since_timestamp_seconds{shard="1.163.2-0",image_tag="1.163.2",phase="Failed",reason="ImageUnavailable"}`]:
        "_x9 600x15 _x30",
      [`${C}shard_not_ready_since_timestamp_seconds{shard="1.163.2-1",image_tag="1.163.2",phase="Draining",reason=""}`]:
        "0x60",
    },
    quiet: [9, 14, 32],
    fires: {
      at: [20],
      labels: { shard: "1.163.2-0", phase: "Failed", reason: "ImageUnavailable" },
      severity: "warning",
      summary: "Shard 1.163.2-0 is not ready (Failed)",
      description:
        "Shard 1.163.2-0 in shards/synapse-shards has been Failed (ImageUnavailable) for 10m 0s. Tenants on it are not served, unless they could be started elsewhere.",
    },
  },
  {
    alert: "SynapseShardsShardOverloaded",
    series: {
      [`${C}shard_load_ratio{shard="1.163.2-0",image_tag="1.163.2"}`]: "0.5x9 0.95x40 0.5x30",
      [`${C}shard_load_ratio{shard="1.163.2-1",image_tag="1.163.2"}`]: "0.85x80",
    },
    quiet: [9, 35, 60],
    fires: {
      at: [45],
      labels: { shard: "1.163.2-0" },
      severity: "warning",
      summary: "Shard 1.163.2-0 has no time left",
      description:
        "Shard 1.163.2-0 in shards/synapse-shards has used 95% of the one core that it can use, for half an hour. All of its tenants are slow.",
    },
  },
  {
    alert: "SynapseShardsGatewayDown",
    series: {
      'up{component="gateway",instance="g1"}': "1x9 0x10 1x30",
      'up{component="gateway",instance="g2"}': "1x4 0x60",
      'up{component="controller",instance="c1"}': "1x60",
    },
    quiet: [8, 25],
    fires: {
      at: [13],
      labels: { component: "gateway" },
      severity: "critical",
      summary: "No gateway can be reached",
      description:
        "Prometheus has not reached any gateway of shards/synapse-shards for a minute. While there is none, no tenant can be reached.",
    },
  },
  {
    alert: "SynapseShardsCertificateEndsSoon",
    series: {
      [`${C}certificates_ending_soon{instance="c1"}`]: "0x9 2x30 0x30",
    },
    quiet: [9, 20, 45],
    fires: {
      at: [30],
      severity: "warning",
      summary: "Certificates end soon and are not renewed",
      description:
        "2 certificates that shards/synapse-shards looks after have less than a fifth of their life left. When one ends, clients and other homeservers refuse the connection to its tenant.",
    },
  },
  {
    alert: "SynapseShardsGatewayNotConnected",
    series: {
      [`${G}feed_connected{instance="g1"}`]: "1x9 0x20 1x30",
      [`${G}feed_connected{instance="g2"}`]: "1x60",
    },
    quiet: [9, 13, 35],
    fires: {
      at: [20],
      labels: { instance: "g1" },
      severity: "warning",
      summary: "A gateway does not hear the controller",
      description:
        "The gateway at g1 of shards/synapse-shards has not heard the controller for 5 minutes. It uses the last routes it knows: new tenants, and those that move, are not found through it.",
    },
  },
  {
    alert: "SynapseShardsGatewayParkingTooLong",
    when: "requests go on waiting",
    series: {
      [`${G}tenant_parked_seconds{tenant="a",instance="g1"}`]: "_x9 2+60x10 _x30",
      [`${G}tenant_parked_seconds{tenant="b",instance="g1"}`]: "_x9 2x1 _x50",
    },
    quiet: [9, 10, 27],
    fires: {
      at: [14],
      labels: { tenant: "a" },
      severity: "critical",
      summary: "Requests for tenant a wait too long",
      description:
        "Gateways of shards/synapse-shards have been holding requests for tenant a much longer than a move takes. Clients wait, and get 503 in the end.",
    },
  },
  {
    alert: "SynapseShardsGatewayParkingTooLong",
    when: "now and then a request comes, waits in vain, and is given up",
    series: {
      [`${G}park_rejected_total{tenant="a",bound="seconds",instance="g1"}`]: "1x9 2x2 3x40",
      [`${G}park_rejected_total{tenant="b",bound="requests",instance="g1"}`]: "1x9 2x2 3x40",
    },
    quiet: [9, 25],
    fires: {
      at: [14],
      labels: { tenant: "a" },
      severity: "critical",
      summary: "Requests for tenant a wait too long",
      description:
        "Gateways of shards/synapse-shards have been holding requests for tenant a much longer than a move takes. Clients wait, and get 503 in the end.",
    },
  },
  {
    alert: "SynapseShardsGatewayErrors",
    series: {
      [`${G}requests_total{tenant="a",code="2xx",instance="g1"}`]: "0+60x80",
      [`${G}requests_total{tenant="a",code="5xx",instance="g1"}`]: "0x9 0+60x30 1800x40",
      // Half of very few.
      [`${G}requests_total{tenant="b",code="2xx",instance="g1"}`]: "0+1x80",
      [`${G}requests_total{tenant="b",code="5xx",instance="g1"}`]: "0+1x80",
    },
    quiet: [9, 18, 50],
    fires: {
      at: [30],
      labels: { tenant: "a" },
      severity: "warning",
      summary: "Many requests for tenant a end in errors",
      description:
        "50% of the requests for tenant a in shards/synapse-shards have been answered with 5xx for 10 minutes.",
    },
  },
];
