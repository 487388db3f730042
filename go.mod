module ambientlab

go 1.26.0
