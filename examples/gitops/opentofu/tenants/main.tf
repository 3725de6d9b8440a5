# The same files as for Argo CD and Flux. State has no secrets: these come from External Secrets.
terraform {
  required_providers {
    kubernetes = { source = "hashicorp/kubernetes", version = ">= 2.38" }
  }
}

locals {
  # tenant.yaml and external-secret.yaml of each directory that has them.
  directory = "${path.module}/../../tenants"
  tenants   = fileset(local.directory, "*/{tenant,external-secret}.yaml")
}

resource "kubernetes_manifest" "tenants" {
  for_each = local.tenants
  manifest = yamldecode(file("${local.directory}/${each.value}"))

  field_manager { name = "opentofu" }
  # A homeserver is not deleted by a plan.
  lifecycle { prevent_destroy = true }
}
