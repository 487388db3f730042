package problem

// Settings and targets' flags: refused before anything is touched.
var (
	SettingInvalid = Kind{
		ID: "LAB-SETTING-INVALID", Layer: LayerSettings, Number: 0,
		Title: "the lab does not accept the value of a setting",
		Advice: []string{
			"Correct the variable or flag named above. The README has a table of the variables, and `mage -h` with " +
				"the name of a target prints its flags.",
		},
	}
	SettingConflict = Kind{
		ID: "LAB-SETTING-CONFLICT", Layer: LayerSettings, Number: 1,
		Title:  "two settings contradict each other",
		Advice: []string{"Unset one of the two variables named above."},
	}
	SettingFileUnreadable = Kind{
		ID: "LAB-SETTING-FILE", Layer: LayerSettings, Number: 2,
		Title:  "a file or folder that a setting names cannot be read or is not valid",
		Advice: []string{"Check the path, the permissions, and that the file is valid YAML."},
	}
	NameAmbiguous = Kind{
		ID: "LAB-NAME-AMBIGUOUS", Layer: LayerSettings, Number: 1,
		Title: "two labs have the same name",
		Advice: []string{
			"Say which one you mean: SM_PROVIDER=kind or SM_PROVIDER=embedded.",
			"Delete the one that you do not need, for example with SM_PROVIDER=kind and `mage sm:delete`.",
		},
	}
)

func settingsKinds() []Kind {
	return []Kind{SettingInvalid, SettingConflict, SettingFileUnreadable, NameAmbiguous}
}
