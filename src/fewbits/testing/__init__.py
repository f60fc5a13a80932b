"""Conformance checks for new formats, repairs, methods and programs, and the random networks they run on."""

from fewbits.testing.algorithm import check_algorithm as check_algorithm
from fewbits.testing.engines import check_engine as check_engine
from fewbits.testing.engines import differences as differences
from fewbits.testing.format import boundary_grid as boundary_grid
from fewbits.testing.format import check_format as check_format
from fewbits.testing.method import check_method as check_method
from fewbits.testing.random_networks import random_language_network as random_language_network
from fewbits.testing.random_networks import random_layers_network as random_layers_network
from fewbits.testing.random_networks import random_masked_network as random_masked_network
from fewbits.testing.random_networks import random_network as random_network
from fewbits.testing.random_programs import random_inner_program as random_inner_program
from fewbits.testing.random_programs import random_layers_program as random_layers_program
from fewbits.testing.random_programs import random_masked_program as random_masked_program
from fewbits.testing.random_programs import random_program as random_program
from fewbits.testing.tables import check_tables as check_tables
