# The same files as for Argo CD and Flux; OpenTofu and Terraform alike. State has no secrets: these come from External Secrets.
terraform {
  required_providers {
    helm       = { source = "hashicorp/helm", version = "~> 3.0" }
    kubernetes = { source = "hashicorp/kubernetes", version = "~> 2.38" }
  }
}

resource "helm_release" "shards" {
  name             = "synapse-shards"
  namespace        = "shards"
  create_namespace = true
  repository       = "oci://ghcr.io/synapse-shards/charts"
  chart            = "synapse-shards"
  version          = "0.1.0"
  values           = [file("${path.module}/../flux/fleet/values.yaml")]
  # Its Job refuses while there are tenants.
  wait = true
}

locals {
  # tenant.yaml and external-secret.yaml of each directory that has them.
  tenants = fileset("${path.module}/../tenants", "*/{tenant,external-secret}.yaml")
}

# The custom resource definitions have to be there when it plans: apply `-target=helm_release.shards` first.
resource "kubernetes_manifest" "tenants" {
  for_each   = local.tenants
  manifest   = yamldecode(file("${path.module}/../tenants/${each.value}"))
  depends_on = [helm_release.shards]

  field_manager { name = "opentofu" }
  # A homeserver is not deleted by a plan.
  lifecycle { prevent_destroy = true }
}
