"""Finds the packages: those of `cl_powerprop/`, and `conf/`, which is installed as `cl_powerprop.conf`."""

from setuptools import find_namespace_packages, find_packages, setup

configs = ["cl_powerprop.conf", *(f"cl_powerprop.conf.{name}" for name in find_namespace_packages("conf"))]
setup(packages=[*find_packages(include=["cl_powerprop*"]), *configs])
