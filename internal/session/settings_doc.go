package session

import "reflect"

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

func accepts(env string) string {
	for _, setting := range Documented() {
		if setting.Env == env {
			return setting.Accepts
		}
	}
	return "nothing that is documented"
}
