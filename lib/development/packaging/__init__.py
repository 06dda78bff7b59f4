"""The packages of ./dev packages: wheel and sdist, deb and rpm, with man pages and a bill of materials."""
