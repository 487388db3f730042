package session

import (
	"net/url"
	"reflect"

	"ambientlab/internal/record"
)

// Setting documents one environment variable.
type Setting struct{ Env, Default, Accepts, Help string }

// Documented lists every setting in the order of the struct, from its tags.
func Documented() []Setting {
	t := reflect.TypeFor[Settings]()
	settings := make([]Setting, 0, t.NumField())
	for i := range t.NumField() {
		if !t.Field(i).IsExported() {
			continue
		}
		tag := t.Field(i).Tag
		settings = append(settings,
			Setting{
				Env: tag.Get("env"), Default: tag.Get("default"), Accepts: tag.Get("accepts"),
				Help: tag.Get("help"),
			})
	}
	return settings
}

// Values lists every setting with what getenv gives for it, without passwords, in the order of Documented.
// INSTALL_KIND, which is another way to write SM_PROVIDER, is listed where it is set.
func Values(getenv func(string) string) []record.Setting {
	var list []record.Setting
	for _, setting := range Documented() {
		value := record.Setting{Name: setting.Env, Value: setting.Default}
		if given := getenv(setting.Env); given != "" {
			value.Value, value.Given = given, true
			if address, err := url.Parse(given); err == nil && address.User != nil {
				value.Value = address.Redacted()
			}
		}
		list = append(list, value)
	}
	if legacy := getenv("INSTALL_KIND"); legacy != "" {
		list = append(list, record.Setting{Name: "INSTALL_KIND", Value: legacy, Given: true})
	}
	return list
}

func accepts(env string) string {
	for _, setting := range Documented() {
		if setting.Env == env {
			return setting.Accepts
		}
	}
	return "nothing that is documented"
}
