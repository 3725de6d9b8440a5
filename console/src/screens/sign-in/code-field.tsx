/** Six digits of an app. */
export function CodeField({ value, onChange }: { value: string; onChange: (code: string) => void }) {
  return (
    <label>
      Code of the app
      <input
        inputMode="numeric"
        pattern="\d{6}"
        autoComplete="one-time-code"
        required
        value={value}
        onChange={({ target }) => onChange(target.value)}
      />
    </label>
  );
}
