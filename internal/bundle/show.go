package bundle

import (
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
)

// ShowHeader and the rows of Show are the table that `show` prints.
func ShowHeader() []string { return []string{"IMAGE", "DIGEST", "SIZE", "SUBSTITUTE"} }

// Show gives one row an image: reference, digest, size and, if the image is not what
// its reference says, what it is.
func (b *Bundle) Show() [][]string {
	rows := make([][]string, 0, len(b.entries))
	for _, e := range b.entries {
		substitute := e.Substitute
		if substitute == "" {
			substitute = "-"
		}
		rows = append(rows, []string{e.Ref, e.Digest.String(), Size(e.Size), substitute})
	}
	return rows
}

// WriteTable writes what Show gives as an aligned table.
func (b *Bundle) WriteTable(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{ShowHeader()}, b.Show()...) {
		if _, err := fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", row[0], row[1], row[2], row[3]); err != nil {
			return fmt.Errorf("writing the bundle's table: %w", err)
		}
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("writing the bundle's table: %w", err)
	}
	return nil
}

// Size writes a number of bytes for people, in decimal units as Docker does: 81.3MB.
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
