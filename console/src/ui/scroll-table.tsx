import type { ReactNode } from "react";

/** A heading; its cells' `className` too. One that is `hidden` is for screen readers alone. */
export interface Column {
  name: string;
  className?: "number";
  hidden?: true;
}

/** A table that scrolls sideways where it is too wide, by keyboard as well. */
export function ScrollTable({
  label,
  columns,
  children,
}: {
  label: string;
  columns: (string | Column | false | undefined)[];
  /** Its rows. */
  children: ReactNode;
}) {
  return (
    <div className="scroll" tabIndex={0} role="group" aria-label={label}>
      <table>
        <thead>
          <tr>{columns.map((column) => column && heading(typeof column === "string" ? { name: column } : column))}</tr>
        </thead>
        <tbody>{children}</tbody>
      </table>
    </div>
  );
}

function heading({ name, className, hidden }: Column) {
  return (
    <th key={name} className={className}>
      {hidden ? <span className="visually-hidden">{name}</span> : name}
    </th>
  );
}
