/**
 * The part of the Reflect metadata API that @peculiar/x509's dependency injection (tsyringe) asks for when it is loaded. Import
 * this before @peculiar/x509.
 */
type Key = string | symbol;
interface MetadataReflect {
  getMetadata?: (key: Key, target: object) => unknown;
  getOwnMetadata?: (key: Key, target: object) => unknown;
  getOwnMetadataKeys?: (target: object) => Key[];
  deleteMetadata?: (key: Key, target: object) => boolean;
  hasOwnMetadata?: (key: Key, target: object) => boolean;
  defineMetadata?: (key: Key, value: unknown, target: object) => void;
  metadata?: (key: Key, value: unknown) => (target: object) => void;
}

const reflect = Reflect as unknown as MetadataReflect;
if (!reflect.getMetadata) {
  const known = new WeakMap<object, Map<Key, unknown>>();
  const own = (target: object): Map<Key, unknown> => {
    const present = known.get(target) ?? new Map<Key, unknown>();
    known.set(target, present);
    return present;
  };
  reflect.getOwnMetadata = (key, target) => own(target).get(key);
  // The package reflect-metadata, where another one brings it along, asks for these two of what it finds.
  reflect.getOwnMetadataKeys = (target) => [...own(target).keys()];
  reflect.deleteMetadata = (key, target) => own(target).delete(key);
  reflect.hasOwnMetadata = (key, target) => own(target).has(key);
  reflect.defineMetadata = (key, value, target) => {
    own(target).set(key, value);
  };
  reflect.metadata = (key, value) => (target) => {
    own(target).set(key, value);
  };
  reflect.getMetadata = (key, target) => {
    for (let at: object | null = target; at; at = Object.getPrototypeOf(at) as object | null) {
      if (own(at).has(key)) return own(at).get(key);
    }
    return undefined;
  };
}
