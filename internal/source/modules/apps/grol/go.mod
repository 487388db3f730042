// Stands in for fortio's scripting language, which the Go module proxy does not serve. It lets fortio
// compile; "fortio script" ends with an error, every other command of fortio is untouched.
module grol.io/grol

go 1.26.0
