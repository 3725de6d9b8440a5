import { z } from "zod";

/** How people reach who runs a homeserver, as errors of the Matrix API tell it (`admin_contact`). */
export const AdminContactSchema = z
  .string()
  .max(500)
  .regex(/^(mailto|https?|tel|sip|xmpp|matrix):[!-~]+$/, "a URI such as mailto:operator@clinic.example");
