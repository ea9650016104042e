# Post 000, "Training a network (2)". Lost in the post: all indentation, and the function and the starting point, which
# are here those of the book that it follows. Its definitions of numerical_gradient and gradient_descent are imported.
from xpnet.tutorial import *


def function_2(x):
    return x[0] ** 2 + x[1] ** 2


init_x = np.array([-3.0, 4.0])
gradient = numerical_gradient(function_2, init_x)
found = gradient_descent(function_2, init_x=init_x, lr=0.1, step_num=100)
too_large = gradient_descent(function_2, init_x=init_x, lr=10.0, step_num=100)
too_small = gradient_descent(function_2, init_x=init_x, lr=1e-10, step_num=100)
