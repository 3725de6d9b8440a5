# The fleet's release; OpenTofu and Terraform alike. Apply it before ../tenants, whose plan reads the custom resource definitions.
terraform {
  required_providers {
    helm = { source = "hashicorp/helm", version = "~> 3.0" }
  }
}

resource "helm_release" "shards" {
  name             = "synapse-shards"
  namespace        = "shards"
  create_namespace = true
  repository       = "oci://ghcr.io/synapse-shards/charts"
  chart            = "synapse-shards"
  version          = "0.1.0"
  values           = [file("${path.module}/../../flux/fleet/values.yaml")]
  # Its Job refuses while there are tenants.
  wait = true
}
