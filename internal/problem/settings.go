package problem

// Settings and targets' flags: refused before anything is touched.
var (
	SettingInvalid = LayerSettings.kind("LAB-SETTING-INVALID", 0, "the lab does not accept the value of a setting",
		"Correct the variable or flag named above. The README has a table of the variables, and `mage -h` with the "+
			"name of a target prints its flags.")
	SettingConflict = LayerSettings.kind("LAB-SETTING-CONFLICT", 1, "two settings contradict each other",
		"Unset one of the two variables named above.")
	SettingFileUnreadable = LayerSettings.kind("LAB-SETTING-FILE", 2,
		"a file or folder that a setting names cannot be read or is not valid",
		"Check the path, the permissions, and that the file is valid YAML.")
	NameAmbiguous = LayerSettings.kind("LAB-NAME-AMBIGUOUS", 1, "two labs have the same name",
		"Say which one you mean: SM_PROVIDER=kind or SM_PROVIDER=embedded.",
		"Delete the one that you do not need, for example with SM_PROVIDER=kind and `mage sm:delete`.")
)

func settingsKinds() []Kind {
	return []Kind{SettingInvalid, SettingConflict, SettingFileUnreadable, NameAmbiguous}
}
