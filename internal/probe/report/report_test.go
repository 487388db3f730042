package report

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ambientlab/internal/junit"
	"ambientlab/internal/probe"
)

var update = flag.Bool("update", false, "write the golden files again")

const golden = "../../../testdata/probe"

func load(t *testing.T, name string) probe.Report {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(golden, name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var r probe.Report
	if err := json.Unmarshal(content, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestGoldenTablesAndJUnit(t *testing.T) {
	for _, name := range []string{"off", "all-on", "strict", "wrong"} {
		r := load(t, name)
		for extension, write := range map[string]func(io.Writer, probe.Report) error{
			".txt": WriteTable,
			".xml": WriteJUnit,
		} {
			var got bytes.Buffer
			if err := write(&got, r); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(golden, name+extension)
			if *update {
				if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Bytes(), want) {
				t.Errorf("%s differs; run with -update and look at the difference", file)
			}
			if extension == ".xml" {
				var parsed struct {
					Suites []junit.Suite `xml:"testsuite"`
				}
				if err := xml.Unmarshal(got.Bytes(), &parsed); err != nil || len(parsed.Suites) != 1 ||
					parsed.Suites[0].Tests != len(r.Claims) {
					t.Errorf("%s: %v %+v", file, err, parsed)
				}
			}
		}
	}
}

func TestJSONKeepsToItsSchema(t *testing.T) {
	var schema map[string]any
	if err := json.Unmarshal(Schema, &schema); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"off", "all-on", "strict", "wrong"} {
		var written bytes.Buffer
		if err := WriteJSON(&written, load(t, name)); err != nil {
			t.Fatal(err)
		}
		var value any
		if err := json.Unmarshal(written.Bytes(), &value); err != nil {
			t.Fatal(err)
		}
		for _, fault := range validate(schema, value, name) {
			t.Error(fault)
		}
	}
	if faults := validate(schema, map[string]any{"schema": "1", "unknown": true}, "wrong"); len(faults) < 3 {
		t.Errorf("the validator finds only %v", faults)
	}
}

// validate covers the part of JSON Schema that schema.json uses.
func validate(schema map[string]any, value any, at string) (faults []string) {
	if want, ok := schema["type"]; ok && !typed(want, value) {
		return []string{at + ": has the wrong type"}
	}
	if choices, ok := schema["enum"].([]any); ok {
		found := false
		for _, c := range choices {
			found = found || c == value
		}
		if !found {
			faults = append(faults, at+": is none of the allowed values")
		}
	}
	switch v := value.(type) {
	case map[string]any:
		properties, _ := schema["properties"].(map[string]any)
		required, _ := schema["required"].([]any)
		for _, key := range required {
			if _, ok := v[key.(string)]; !ok {
				faults = append(faults, at+": lacks "+key.(string))
			}
		}
		for key, item := range v {
			switch sub, known := properties[key].(map[string]any); {
			case known:
				faults = append(faults, validate(sub, item, at+"."+key)...)
			case schema["additionalProperties"] == false:
				faults = append(faults, at+": the schema knows no "+key)
			default:
				if sub, ok := schema["additionalProperties"].(map[string]any); ok {
					faults = append(faults, validate(sub, item, at+"."+key)...)
				}
			}
		}
	case []any:
		items, _ := schema["items"].(map[string]any)
		for _, item := range v {
			faults = append(faults, validate(items, item, at+"[]")...)
		}
	}
	return faults
}

func typed(want, value any) bool {
	if several, ok := want.([]any); ok {
		for _, w := range several {
			if typed(w, value) {
				return true
			}
		}
		return false
	}
	switch v := value.(type) {
	case nil:
		return want == "null"
	case string:
		return want == "string"
	case bool:
		return want == "boolean"
	case float64:
		return want == "number" || (want == "integer" && v == float64(int64(v)))
	case []any:
		return want == "array"
	case map[string]any:
		return want == "object"
	}
	return false
}

func TestPage(t *testing.T) {
	for _, name := range []string{"off", "all-on", "strict", "wrong"} {
		r := load(t, name)
		var out bytes.Buffer
		if err := WritePage(&out, r); err != nil {
			t.Fatal(err)
		}
		page := out.String()
		for _, c := range r.Claims {
			if !strings.Contains(page, `id="`+c.ID+`"`) {
				t.Errorf("%s: claim %s is missing", name, c.ID)
			}
		}
		if !strings.Contains(page, "nodeproxy") {
			t.Errorf("%s: the substitutes are not named", name)
		}
		for _, outside := range []string{
			"http-equiv=\"refresh\"", "<script", "<link rel=\"stylesheet", "src=\"http",
			"ZgotmplZ", "url(http",
		} {
			if strings.Contains(page, outside) {
				t.Errorf("%s: the page holds %s", name, outside)
			}
		}
	}
}

// What came over the network ends up as text, whatever it holds.
func TestPageEscapes(t *testing.T) {
	r := load(t, "off")
	r.Claims[0].Checks[0].Text = `<script>alert("x")</script>`
	r.Claims[0].Measured[0].Body = `"><img src=x onerror=alert(1)>`
	var out bytes.Buffer
	if err := WritePage(&out, r); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String(), "<script>") || strings.Contains(out.String(), "<img") {
		t.Error("markup was taken over")
	}
}

func TestWriteFolder(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "deep", "report")
	if err := WriteFolder(folder, load(t, "wrong")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{PageFile, JSONFile, JUnitFile} {
		if info, err := os.Stat(filepath.Join(folder, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	blocked := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := WriteFolder(blocked, probe.Report{}); err == nil {
		t.Error("a folder over a file went well")
	}
}

func TestNothingMeasured(t *testing.T) {
	var page, table bytes.Buffer
	if err := errorsOf(WritePage(&page, probe.Report{}), WriteTable(&table, probe.Report{})); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(page.String(), "Nothing was measured") ||
		!strings.Contains(table.String(), "0 of 0 claims proven") {
		t.Errorf("%s", table.String())
	}
}

func errorsOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
