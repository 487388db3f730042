package problem

// Settings and targets' flags: refused before anything is touched.
var (
	SettingInvalid = Kind{
		ID: "LAB-SETTING-INVALID", Layer: LayerSettings, Number: 0,
		Title:  "a setting has a value that the lab does not accept",
		Advice: []string{"Correct the variable or flag named above; the README's settings table lists what each accepts."},
	}
	SettingConflict = Kind{
		ID: "LAB-SETTING-CONFLICT", Layer: LayerSettings, Number: 1,
		Title:  "two settings contradict each other",
		Advice: []string{"Unset one of the two variables named above."},
	}
	SettingFileUnreadable = Kind{
		ID: "LAB-SETTING-FILE", Layer: LayerSettings, Number: 2,
		Title:  "a file that a setting names cannot be used",
		Advice: []string{"Check the path, its permissions and that the file is valid YAML."},
	}
)

func settingsKinds() []Kind {
	return []Kind{SettingInvalid, SettingConflict, SettingFileUnreadable}
}
