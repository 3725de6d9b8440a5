/** For how long an earlier state of a tenant is kept to be looked at. */
export const INSPECTION_HOURS = { default: 24, most: 720 };
