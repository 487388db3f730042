package bundle

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
)

// WriteTable writes one line for each image: its reference, digest and size, and what it is if it is not what its
// reference says.
func (b *Bundle) WriteTable(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "IMAGE\tDIGEST\tSIZE\tSUBSTITUTE")
	for _, e := range b.entries {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", e.Ref, e.Digest, Size(e.Size), cmp.Or(e.Substitute, "-"))
	}
	// A tabwriter writes only here.
	if err := table.Flush(); err != nil {
		return fmt.Errorf("writing the bundle's table: %w", err)
	}
	return nil
}

// Size formats a number of bytes in decimal units, as Docker does: 81.3MB.
func Size(bytes int64) string {
	if bytes < 1000 {
		return strconv.FormatInt(bytes, 10) + "B"
	}
	value, unit := float64(bytes), 0
	units := []string{"B", "kB", "MB", "GB", "TB", "PB", "EB"}
	for value >= 999.5 && unit < len(units)-1 {
		value /= 1000
		unit++
	}
	return strconv.FormatFloat(value, 'g', 3, 64) + units[unit]
}
