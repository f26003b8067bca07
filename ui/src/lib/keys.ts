/** Keys as the server lists them, and the fields of the form that makes or changes one. */

export const LIMITS = ['requests_per_minute', 'tokens_per_minute', 'requests_in_flight', 'max_output_tokens', 'max_request_seconds'] as const;
export type Limit = (typeof LIMITS)[number];

export interface Key extends Record<Limit, number | null> {
  id: string;
  name: string;
  scopes: string[];
  models: string[] | null;
  created: number;
  expires: number | null;
  revoked: number | null;
  last_used: number | null;
  priority: string;
}

export interface KeyFields {
  name: string;
  /** `use`, `manage`, `monitor`, or `all`: use and manage. */
  scope: string;
  models: string[];
  /** Seconds from now; `never`; or empty: as it is. */
  expires: string;
  limits: Record<Limit, string>;
  priority: string;
}

export const LIFETIMES: [string, string][] = [
  ['never', 'never'],
  ['86400', 'in a day'],
  ['604800', 'in a week'],
  ['2592000', 'in 30 days'],
  ['31536000', 'in a year'],
];

export function fieldsOf(key: Key | null): KeyFields {
  const limits = Object.fromEntries(LIMITS.map((name) => [name, String(key?.[name] ?? '')])) as Record<Limit, string>;
  const scopes = key?.scopes ?? ['use'];
  const scope = scopes.includes('use') && scopes.includes('manage') ? 'all' : (scopes[0] ?? 'use');
  return { name: key?.name ?? '', scope, models: key?.models ?? [], expires: key ? '' : 'never', limits, priority: key?.priority ?? 'normal' };
}

/**
 * The fields of a key's form that a person has changed, as the server takes them: what another one has changed meanwhile, or
 * what the form cannot show, stays.
 */
export function changesOf(key: Key, fields: KeyFields): Record<string, unknown> {
  const before = bodyOf(fieldsOf(key), true);
  return Object.fromEntries(Object.entries(bodyOf(fields, true)).filter(([name, value]) => JSON.stringify(value) !== JSON.stringify(before[name])));
}

/** The body of the request that makes the key, or with `isChange` changes it. */
export function bodyOf(fields: KeyFields, isChange: boolean): Record<string, unknown> {
  const limits = LIMITS.map((name) => [name, fields.limits[name] ? Number(fields.limits[name]) : null] as const);
  const set = isChange ? limits : limits.filter(([, value]) => value !== null);
  const expires = fields.expires === '' ? {} : { expires_in: fields.expires === 'never' ? null : Number(fields.expires) };
  return {
    name: fields.name.trim(),
    scopes: fields.scope === 'all' ? ['use', 'manage'] : [fields.scope],
    ...(fields.models.length ? { models: fields.models } : isChange ? { models: null } : {}),
    ...expires,
    ...Object.fromEntries(set),
    priority: fields.priority,
  };
}
